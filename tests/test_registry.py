"""Names of things that users choose: entered once, found, and explained where they are wrong."""

import pytest

from naign_ext.registry import Registry


def registry() -> Registry[type]:
    made: Registry[type] = Registry("thing")
    made.register("integer")(int)
    made.register("text")(str)
    return made


def test_entries_come_in_the_order_of_registration() -> None:
    assert dict(registry()) == {"integer": int, "text": str}
    assert registry().find("text") is str


def test_a_decorator_gives_back_what_it_enters() -> None:
    things = registry()

    @things.register("own")
    class Own:
        pass

    assert things["own"] is Own


def test_a_name_is_entered_once() -> None:
    with pytest.raises(ValueError, match=r"thing: 'text' is registered already"):
        registry().register("text")(bytes)


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(
        ValueError, match=r"thing: expected one of integer, text, got 'integr'; did you mean integer\?"
    ):
        registry().find("integr")
    with pytest.raises(KeyError):
        registry()["integr"]


@pytest.mark.parametrize("name", [None, 3, ["integer"], {}])
def test_what_is_no_name_is_not_in_it(name: object) -> None:
    assert name not in registry()
    with pytest.raises(ValueError, match="thing: expected one of integer, text, got"):
        registry().find(name)  # type: ignore[arg-type]
