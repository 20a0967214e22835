"""Rows of results: lookups, JSON, and records of naign 0.1 read as rows."""

import json
import math

import pytest

from naign_ext.evaluation import METRICS, Condition, Key, Results, Row, describe
from naign_ext.evaluation.flat_keys import key_of, read_results, results_of
from naign_ext.evaluation.subjects import RESTORATIONS

MASK = Condition("mask", known=True)
ROWS = (
    Row("idempotence", "f", 0.1),
    Row("fid", "f(z)", 3.0),
    Row("fid", "f(f(z))", 4.0),
    Row("fid", "copies", 1.0),
    Row("gain", "f", 2.0, Condition("noise", 0.5)),
    Row("gain", "f", 5.0, MASK),
    Row("gain", "filter", 0.5, MASK),
)


def test_values_are_looked_up_by_metric_subject_and_condition():
    found = Results(ROWS)
    assert found.value("idempotence") == found.value("idempotence", "f") == 0.1
    assert found.value("fid") == 3.0
    assert found.value("fid", "f(f(z))") == 4.0
    assert found.value("gain", "f", MASK) == found.value("gain", condition=MASK) == 5.0
    assert found[Key("gain", "filter", MASK)] == 0.5
    assert found.find("gain", "f") is None
    assert found.own("kid") is None
    assert found.baselines("fid") == {"copies": 1.0}
    assert found.baselines("gain", MASK) == {"filter": 0.5}
    assert found.baselines("gain") == {}
    assert found.metrics == ["idempotence", "fid", "gain"]
    assert found.conditions == [Condition("noise", 0.5), MASK]
    assert found.of("gain", MASK) == ROWS[5:]
    assert Key("fid", "copies") in found
    assert Key("fid", "pca") not in found


def test_what_is_not_there_is_named():
    with pytest.raises(
        KeyError, match=r"fid of pca: expected one of the rows of fid: f\(z\), f\(f\(z\)\), copies"
    ):
        Results(ROWS).value("fid", "pca")
    with pytest.raises(KeyError, match="kid of f: expected one of the rows of kid: there are none"):
        Results(ROWS).value("kid")
    with pytest.raises(ValueError, match="rows: expected one for each metric"):
        Results((*ROWS, ROWS[0]))


def test_rows_go_through_json():
    rows = (*ROWS, Row("kid", "f(z)", math.nan))
    text = json.dumps(Results(rows).to_json(), allow_nan=False)
    again = Results.from_json(json.loads(text))
    assert again.rows[:-1] == ROWS
    assert math.isnan(again.value("kid"))
    assert again.finite() == Results(ROWS)
    assert json.loads(text)[5] == {
        "metric": "gain",
        "subject": "f",
        "condition": {"corruption": "mask", "strength": None, "known": True},
        "value": 5.0,
    }


@pytest.mark.parametrize(
    ("flat", "key"),
    [
        ("fixed_point_train", Key("fixed_point_train", "f")),
        ("ood_auroc_multiscale", Key("ood_auroc_multiscale", "f")),
        ("residual_spearman_far", Key("residual_spearman_far", "f")),
        ("temperature", Key("temperature", "f")),
        ("energy_distance", Key("energy_distance", "f(z)")),
        ("energy_distance_twice", Key("energy_distance", "f(f(z))")),
        ("samples", Key("rows_judged", "f(z)")),
        ("anchor_samples_half", Key("rows_judged", "half")),
        ("fld_features", Key("fld", "f(z)")),
        ("fld_features_twice", Key("fld", "f(f(z))")),
        ("fld_pixels", Key("fld_pixels", "f(z)")),
        ("modes_total", Key("modes_total", "data")),
        ("anchor_fld_features_half", Key("fld", "half")),
        ("anchor_fixed_point_heldout_nearest", Key("fixed_point_heldout", "nearest")),
        ("anchor_ood_auroc_variance", Key("ood_auroc", "variance")),
        ("anchor_accuracy_classifier", Key("accuracy", "clean")),
        ("restore_noise_0.5_psnr_before", Key("psnr", "corrupted", Condition("noise", 0.5))),
        ("restore_noise_1.0_accuracy_after", Key("accuracy", "f", Condition("noise", 1.0))),
        ("restore_mask_known_gain_clipped", Key("gain_clipped", "f", MASK)),
        ("restore_blur_filter_gain", Key("gain", "filter", Condition("blur"))),
        ("restore_downsample_tv_gain", Key("gain", "tv", Condition("downsample"))),
        ("restore_downsample_known_ssim_after", Key("ssim", "f", Condition("downsample", known=True))),
    ],
)
def test_flat_keys_of_naign_0_1_are_rows(flat, key):
    assert key_of(flat) == key


def test_records_of_both_kinds_are_read():
    old = {"figures": {"idempotence": 0.1, "fld_features": None, "restore_mask_gain": 2.0}}
    found = read_results(old)
    assert found.value("idempotence") == 0.1
    assert math.isnan(found.value("fld"))
    assert found.value("gain", condition=RESTORATIONS[2]) == 2.0
    assert read_results({"metrics": Results(ROWS).to_json()}) == Results(ROWS)
    assert all(row.metric in METRICS for row in results_of(old["figures"]).rows)


def test_descriptions_say_of_what_and_which_way():
    assert describe(Key("fld", "f(z)")).title == "FLD"
    assert describe(Key("fld", "f(f(z))")).title == "FLD, f(f(z))"
    assert describe(Key("fld", "f(z)")).better == "lower"
    assert describe(Key("fld", "blur")).title == "FLD: blur"
    assert describe(Key("fld", "blur")).better == "-"
    assert describe(Key("gain", "f", MASK)).title == "mask, known kept: gain, dB"
    noisy = Key("accuracy", "f", Condition("noise", 1.0))
    assert describe(noisy).title == "noise 1.0: accuracy after"
    assert describe(noisy.of("corrupted")).title == "noise 1.0: accuracy before"
    with pytest.raises(ValueError, match=r"metric: expected one of .*did you mean fid"):
        describe(Key("fidd", "f(z)"))
