"""What differs between two models, in metadata and weights."""

import math

import numpy as np
import pytest

from hanse.models.comparing import compare, get_relative_error
from hanse.models.opening import open_model
from hanse.protocol.errors import RequestError
from tests.models.tiny_models import make_config, make_weights, write_folder, write_safetensors


@pytest.fixture
def weights():
    return make_weights(make_config())


def open_folder(path, weights, **changed):
    return open_model(write_folder(path, make_config(**changed), weights))[1]


def test_a_model_does_not_differ_from_itself(tmp_path, weights):
    first, second = (open_folder(tmp_path / name, weights) for name in ("a", "b"))
    found = compare(first, second)
    assert found.is_none
    assert found.equal_tensors == len(weights)


def test_one_changed_weight_is_found_and_measured(tmp_path, weights):
    first = open_folder(tmp_path / "a", weights)
    name = "model.layers.1.mlp.up_proj.weight"
    changed = weights[name].copy()
    changed[3, 5] += 1
    second = open_folder(tmp_path / "b", weights | {name: changed})
    found = compare(first, second)
    (tensor,) = found.changed
    assert tensor.name == name
    larger = max(np.linalg.norm(weights[name]), np.linalg.norm(changed))
    assert tensor.relative_error == pytest.approx(1 / larger, rel=1e-5)
    assert found.equal_tensors == len(weights) - 1


def test_the_same_numbers_in_another_type_are_a_change_without_error(tmp_path, weights):
    name = "model.norm.weight"
    first = open_folder(tmp_path / "a", weights | {name: np.ones(64, np.float32)})
    second = open_folder(tmp_path / "b", weights | {name: np.ones(64, np.float16)})
    (tensor,) = compare(first, second).changed
    assert (tensor.first.dtype, tensor.second.dtype) == ("F32", "F16")
    assert tensor.relative_error == 0


def test_metadata_tensors_and_shapes_that_differ_are_named(tmp_path, weights):
    besides = {"extra.weight": np.ones(3, np.float32)}
    other = {"model.norm.weight": np.ones(32, np.float32)}
    first = open_folder(tmp_path / "a", weights)
    second = open_folder(tmp_path / "b", weights | besides | other, rms_norm_eps=1e-5)
    found = compare(first, second)
    assert [(v.key, v.first, v.second) for v in found.values] == [
        ("config.rms_norm_eps", 1e-6, 1e-5)
    ]
    assert [tensor.name for tensor in found.only_second] == ["extra.weight"]
    assert found.only_first == ()
    (tensor,) = found.changed
    assert tensor.relative_error is None


def test_true_is_not_one(tmp_path, weights):
    first = open_folder(tmp_path / "a", weights, use_cache=True)
    second = open_folder(tmp_path / "b", weights, use_cache=1)
    assert [value.key for value in compare(first, second).values] == ["config.use_cache"]


def test_another_format_is_no_comparison(tmp_path, weights):
    from gguf import GGUFWriter

    writer = GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_tensor("a", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = open_model(tmp_path / "a.gguf")[1]
    with pytest.raises(RequestError, match="quantise -t F16"):
        compare(first, open_folder(tmp_path / "b", weights))


def test_errors_at_the_edges():
    zero, one = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert get_relative_error(zero, zero) == 0
    assert get_relative_error(zero, one) == get_relative_error(one, zero) == 1
    assert get_relative_error(one, -one) == 2
    assert math.isnan(get_relative_error(one, one * np.nan))


def test_weights_without_a_folder_are_compared_too(tmp_path, weights):
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", weights)
    first, second = (open_model(tmp_path / f"{n}.safetensors")[1] for n in ("a", "b"))
    assert compare(first, second).is_none
