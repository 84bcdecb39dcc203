from mmllm.data.charset import CHARSET


def test_the_charset_is_printable_ascii_in_order():
    assert len(CHARSET) == 95
    assert CHARSET[0] == " "
    assert CHARSET[-1] == "~"
    assert list(CHARSET) == sorted(set(CHARSET))
