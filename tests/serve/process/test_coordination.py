"""The socket of the service, and whether a process still has a supervisor."""

import socket

import pytest

from mmllm.serve.process import coordination


def test_port_zero_takes_a_free_one_and_the_address_names_it():
    with coordination.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert coordination.address(listener) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_an_ipv6_address_has_brackets():
    try:
        listener = coordination.listen("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert coordination.address(listener).startswith("http://[::1]:")


def test_a_taken_port_takes_one_line_that_says_what_to_do():
    with coordination.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=rf"127.0.0.1 port {port} .*in use.*--port"):
            coordination.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(host: str):
    with pytest.raises(ValueError, match="choose others with --host"):
        coordination.listen(host, 0)


def test_this_process_has_no_supervisor():
    assert not coordination.is_supervised()


def test_processes_know_who_has_more_connections():
    memory = [0.0] * 3, [-1] * 3, [0] * 3
    first, second = (coordination.SharedState(*memory, place) for place in (0, 1))
    assert not first.should_yield(5)  # alone
    second.beat(5)
    assert not first.should_yield(5)
    assert first.should_yield(6)
    assert second.last_beat_s > 0
    second.clear()
    assert not first.should_yield(6)
    assert second.last_beat_s == 0


def test_a_process_that_asked_to_be_replaced_is_not_taken_for_its_successor():
    memory = [0.0] * 2, [-1] * 2, [0] * 2
    first, second = (coordination.SharedState(*memory, place) for place in (0, 1))
    first.ask_for_replacement()
    assert first.wants_replacement
    assert not second.wants_replacement
    coordination.SharedState(*memory, 0).clear()
    assert not first.wants_replacement
