"""What a search on a CUDA device plans: tests/native/imle_knn_plan.cpp, line by line."""

import subprocess

import pytest
from emulated import build_program

CHECKS = [
    "memory_is_bounded_whatever_the_size",
    "chunks_grow_with_what_was_seen",
    "a_small_pool_and_few_rows_are_one_chunk",
    "groups_and_chunks_cover_all_rows_once",
    "parts_cover_a_chunk_and_have_room",
    "the_seed_has_room_where_the_lists_are",
    "no_two_threads_share_a_group_of_the_seed",
    "pieces_of_the_workspace_do_not_overlap",
    "what_is_zeroed_ends_where_the_next_piece_begins",
    "checks_of_pieces_can_fail",
    "the_exact_comparison_covers_the_pool",
    "the_comparison_by_columns_has_no_empty_share",
    "the_method_suits_the_device",
    "a_larger_pool_is_never_compared_exactly_again",
    "a_filter_needs_a_device_that_has_it",
    "packed_data_grow_with_rows_and_columns",
    "lists_shorten_with_rows_and_lengthen_with_k",
    "every_tile_is_taken_once",
    "every_byte_of_packed_rows_has_a_place_of_its_own",
    "the_products_of_digits_make_up_the_product_of_rows",
    "digits_are_bytes_and_add_up",
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What every check says."""
    program = build_program(
        tmp_path_factory.mktemp("plan"), "tests/native/imle_knn_plan.cpp", "csrc/imle_knn/cuda/plan.cpp"
    )
    found = subprocess.run([program], capture_output=True, text=True, check=True)
    return dict(line.split(": ", 1) for line in found.stdout.splitlines())


@pytest.mark.parametrize("check", CHECKS)
def test_plan(outcomes: dict[str, str], check: str) -> None:
    assert outcomes[check] == "ok"


def test_every_check_has_a_test(outcomes: dict[str, str]) -> None:
    assert list(outcomes) == CHECKS
