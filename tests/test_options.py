"""Sections of a configuration: former names, and sections chosen by name."""

import warnings
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import SerializeAsAny, ValidationError

from naign_ext.options import Options, chosen_from, explain, option
from naign_ext.registry import Registry


def with_former_name() -> type[Options]:
    class Noise(Options):
        renamed: ClassVar[dict[str, str]] = {"sigma": "scale"}
        scale: float = option(1.0, "Scale.", "Noise")

    return Noise


def test_a_former_name_is_read_with_one_warning() -> None:
    noise = with_former_name()
    with pytest.warns(UserWarning, match=r"^sigma: is called scale in Noise; rename it$"):
        found = noise.model_validate({"sigma": 3})
    assert found == noise(scale=3)
    assert found.model_dump() == {"scale": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert noise.model_validate({"sigma": 4}) == noise(scale=4)


def test_subclasses_read_the_former_names_too() -> None:
    noise = with_former_name()

    class Coloured(noise):  # type: ignore[misc,valid-type]
        colour: str = "pink"

    with pytest.warns(UserWarning, match="sigma"):
        assert Coloured.model_validate({"sigma": 2, "colour": "red"}).model_dump() == {
            "scale": 2,
            "colour": "red",
        }


def test_both_names_are_a_mistake() -> None:
    with pytest.raises(
        ValidationError, match="sigma: is the former name of scale; expected one of them, got both"
    ):
        with_former_name().model_validate({"sigma": 3, "scale": 4})


def test_a_name_that_never_was_is_an_error_still() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        with_former_name().model_validate({"sigme": 3})


class Shape(Options):
    name: str


class Circle(Shape):
    name: Literal["circle"] = "circle"
    radius: float = option(1.0, "Radius.", "Shape", gt=0)


class Square(Shape):
    name: Literal["square"] = "square"
    side: float = option(1.0, "Side.", "Shape", gt=0)


class Drawable:
    Options: ClassVar[type[Shape]]


def shapes() -> Registry[type[Drawable]]:
    registry: Registry[type[Drawable]] = Registry("shape")
    for options in (Circle, Square):
        registry.register(options().name)(type("Drawn", (Drawable,), {"Options": options}))
    return registry


def drawing(registry: Registry[type[Drawable]], *, ignore_others: bool = False) -> type[Options]:
    class Drawing(Options):
        shape: Annotated[
            SerializeAsAny[Shape], chosen_from(registry, "name", "circle", ignore_others=ignore_others)
        ] = Circle()

    return Drawing


def mistakes(options: type[Options], shape: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        options.model_validate({"shape": shape})
    return [f"{'.'.join(map(str, wrong['loc']))}: {explain(wrong)}" for wrong in caught.value.errors()]


def test_a_section_is_read_by_the_options_it_names() -> None:
    options = drawing(shapes())
    assert options.model_validate({"shape": {"name": "square", "side": 2}}).model_dump() == {
        "shape": {"name": "square", "side": 2}
    }
    assert options.model_validate({"shape": {"radius": 2}}).model_dump() == {
        "shape": {"name": "circle", "radius": 2}
    }
    assert options.model_validate({"shape": Square(side=3)}).model_dump()["shape"] == {
        "name": "square",
        "side": 3,
    }


def test_what_is_registered_later_is_read_too() -> None:
    registry = shapes()
    options = drawing(registry)

    class Triangle(Shape):
        name: Literal["triangle"] = "triangle"

    registry.register("triangle")(type("Drawn", (Drawable,), {"Options": Triangle}))
    assert options.model_validate({"shape": {"name": "triangle"}}).model_dump() == {
        "shape": {"name": "triangle"}
    }


def test_mistakes_are_placed_in_the_section() -> None:
    options = drawing(shapes())
    assert mistakes(options, {"name": "line"}) == ["shape.name: expected one of circle, square, got 'line'"]
    assert mistakes(options, {"radius": 0}) == ["shape.radius: expected greater than 0, got 0"]
    assert mistakes(options, {"side": 1}) == ["shape.side: Extra inputs are not permitted, got 1"]
    assert mistakes(options, 7) == ["shape: expected a section with fields such as name, got 7"]


def test_fields_of_others_may_be_ignored_but_not_unknown_ones() -> None:
    options = drawing(shapes(), ignore_others=True)
    assert options.model_validate({"shape": {"side": 1}}).model_dump() == {
        "shape": {"name": "circle", "radius": 1.0}
    }
    assert mistakes(options, {"sides": 1}) == ["shape.sides: Extra inputs are not permitted, got 1"]


def test_long_values_are_cut_short() -> None:
    assert len(mistakes(drawing(shapes()), {"radius": "x" * 1000})[0]) < 200
