"""What `hanse audit calibrate` is asked for, checked before anything is measured."""

from pathlib import Path

import msgspec
import pytest

from hanse.auditor.calibrating.noise import Upstream
from hanse.cli.auditing.calibration_runs import find_served, plan
from hanse.engines.proving.copy_in_service import find_copy
from hanse.protocol.commitments.copies import encode_copy_description
from hanse.protocol.errors import RequestError
from tests.engines.tiny_copy import make_copy


def test_an_upstream_is_named_whole_or_not_at_all(tmp_path: Path) -> None:
    names = ("upstream", "upstream_model", "served_copy", "served_by", "served")
    common = {"answers": 80, "quantile": 0.95, "confidence": 0.95, "loads": (),
              "target": tmp_path / "new.json"}  # fmt: skip
    assert plan(common | dict.fromkeys(names)).upstream is None
    whole = dict.fromkeys(names, "x") | {"served": None}
    assert plan(common | whole).upstream == Upstream("x", "x", "x", "x")  # type: ignore[arg-type]
    for left_out in names[:4]:
        with pytest.raises(RequestError, match="belong together"):
            plan(common | whole | {left_out: None})


@pytest.mark.parametrize(("name", "said"), [("there.json", "is there already"),
                                            ("none/new.json", "there is no folder")])  # fmt: skip
def test_where_nothing_can_be_written_nothing_is_measured(
    tmp_path: Path, name: str, said: str
) -> None:
    """An hour of answers was measured, and then refused for its file."""
    (tmp_path / "there.json").touch()
    with pytest.raises(RequestError, match=said):
        plan({"target": tmp_path / name})


def test_a_calibration_is_of_the_type_that_is_served(tmp_path: Path) -> None:
    """Not of the auditor's own file, which may be a finer one of the same key."""
    served = make_copy(tmp_path / "served.gguf")
    audited = find_copy(served)
    assert audited is not None
    told = served.with_name("served.gguf.copy.json")
    coarse = msgspec.structs.replace(audited.description, quantisation="Q8_0")
    told.write_bytes(encode_copy_description(coarse))
    none = {"served_copy": None, "served": None}
    for options in (none | {"served_copy": told}, none | {"served": str(served)}):
        found = find_served(audited.description, options)
        assert found is not None
        assert found.quantisation == "Q8_0"
    assert find_served(audited.description, none) == audited.description
    told.unlink()
    assert find_served(audited.description, none | {"served": str(served)}) is None
