import pydantic
import pytest

from mmllm.serve.api import schemas


def test_a_field_that_is_not_in_the_schema_is_an_error():
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        schemas.CaptionFields.model_validate({"languag": "de"})


def test_metadata_is_json_in_a_form_and_an_object_in_json():
    form = {"context": {"form": True}}
    metadata = {"author": "me"}
    fields = schemas.IndexFields
    assert (
        fields.model_validate_strings({"metadata": '{"author":"me"}'}, **form).metadata == metadata
    )
    assert fields.model_validate({"metadata": metadata}).metadata == metadata
    with pytest.raises(pydantic.ValidationError):
        fields.model_validate({"metadata": '{"author":"me"}'})


@pytest.mark.parametrize(
    "metadata", ["[", "3", '{"a": 1}', '{"": "b"}', '{"a": {}}', "{" * 100_000]
)
def test_metadata_that_is_no_object_of_texts_is_an_error(metadata: str):
    with pytest.raises(pydantic.ValidationError):
        schemas.IndexFields.model_validate_strings({"metadata": metadata}, context={"form": True})


@pytest.mark.parametrize("sign", ["\0", "\x1b", "\u202e", "\u200b", "\ufeff"])
def test_metadata_has_no_characters_that_nobody_sees(sign: str):
    for wrong in ({"a": f"b{sign}c"}, {f"b{sign}c": "a"}):
        with pytest.raises(pydantic.ValidationError, match=f"U.{ord(sign):04X}"):
            schemas.IndexFields.model_validate({"metadata": wrong})
    metadata = {"a": "two\nlines, 👩\u200d🚀 and é"}
    assert schemas.IndexFields.model_validate({"metadata": metadata}).metadata == metadata


def test_the_form_and_the_json_of_a_task_have_the_same_fields():
    for fields in (schemas.CaptionFields, schemas.VqaFields, schemas.IndexFields):
        form, body = schemas.form_schema(fields), schemas.with_image(fields).model_json_schema()
        assert form["properties"].keys() == body["properties"].keys()
        assert form["required"] == body["required"]
        assert form["properties"]["image"] == {"type": "string", "format": "binary"}


def test_a_picture_may_be_left_out_only_where_it_is_optional():
    with pytest.raises(pydantic.ValidationError, match="image"):
        schemas.with_image(schemas.OcrFields).model_validate({})
    assert schemas.with_image(schemas.SearchFields, True).model_validate({}).image is None


@pytest.mark.parametrize("name", ["a", "a.b-c_d", "9" * 128])
def test_plain_names_are_ids(name: str):
    assert pydantic.TypeAdapter(schemas.ItemId).validate_python(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "ä", "a\n", "9" * 129])
def test_other_names_are_not_ids(name: str):
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(schemas.ItemId).validate_python(name)
