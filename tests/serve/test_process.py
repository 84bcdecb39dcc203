"""The socket of the service, and whether a process still has a supervisor."""

import socket

import pytest

from mmllm.serve import process


def test_port_zero_takes_a_free_one_and_the_address_names_it():
    with process.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert process.address(listener) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_an_ipv6_address_has_brackets():
    try:
        listener = process.listen("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert process.address(listener).startswith("http://[::1]:")


def test_a_taken_port_takes_one_line_that_says_what_to_do():
    with process.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=rf"127.0.0.1 port {port} .*in use.*--port"):
            process.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(host: str):
    with pytest.raises(ValueError, match="choose others with --host"):
        process.listen(host, 0)


def test_this_process_has_no_supervisor():
    assert not process.is_supervised()


def test_processes_know_who_has_more_connections():
    memory = [0.0] * 3, [-1] * 3, [0] * 3
    first, second = (process.Share(*memory, place) for place in (0, 1))
    assert not first.is_ahead(5)  # alone
    second.beat(5)
    assert not first.is_ahead(5)
    assert first.is_ahead(6)
    assert second.beaten_s > 0
    second.clear()
    assert not first.is_ahead(6)
    assert second.beaten_s == 0


def test_a_process_that_asked_for_an_heir_is_not_taken_for_its_successor():
    memory = [0.0] * 2, [-1] * 2, [0] * 2
    first, second = (process.Share(*memory, place) for place in (0, 1))
    first.ask_for_heir()
    assert first.wants_heir
    assert not second.wants_heir
    process.Share(*memory, 0).clear()
    assert not first.wants_heir
