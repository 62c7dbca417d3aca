"""What `hanse audit calibrate` is asked for, checked before anything is measured."""

import pytest

from hanse.auditor.calibrating.noise import Upstream
from hanse.cli.auditing.calibration_runs import plan
from hanse.protocol.errors import RequestError


def test_an_upstream_is_named_whole_or_not_at_all() -> None:
    names = ("upstream", "upstream_model", "served_copy", "served_by", "served")
    common = {"answers": 80, "quantile": 0.95, "confidence": 0.95, "loads": ()}
    assert plan(common | dict.fromkeys(names)).upstream is None
    whole = dict.fromkeys(names, "x") | {"served": None}
    assert plan(common | whole).upstream == Upstream("x", "x", "x", "x")  # type: ignore[arg-type]
    for left_out in names[:4]:
        with pytest.raises(RequestError, match="belong together"):
            plan(common | whole | {left_out: None})
