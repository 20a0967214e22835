"""`naign data`: what there is to train on."""

from pathlib import Path
from typing import Annotated

import typer
from naign_cli.arguments import Json
from naign_cli.guard import guarded
from naign_cli.output import print_json, print_table, results, say


@guarded
def list_datasets(*, json: Json = False) -> None:
    """List the data sets with their sizes, sources and licences."""
    from naign_ext.data import OWN_PRESET, describe_datasets

    found = describe_datasets()
    if json:
        print_json([info.as_dict() for info in found])
        return
    lines = [
        [
            info.name,
            "x".join(map(str, info.sample_shape)),
            str(info.train or ""),
            str(info.heldout or ""),
            "naign data get" if info.download else "",
            info.source.partition(";")[0],
        ]
        for info in found
    ]
    print_table(
        "", ["name", "shape", "train", "held out", "download", "source"], lines, numbers=["train", "held out"]
    )
    for info in found:
        if info.preset != OWN_PRESET:
            results().print(f"{info.name}: no preset of its own; that for {info.preset} stands in")
        if info.licence:
            results().print(f"{info.name}: {info.licence}", style="dim")


@guarded
def get(
    name: Annotated[str, typer.Argument(help="ffhq100 or mnist.")],
    *,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder to download into; default $NAIGN_DATA, else ~/.cache/naign.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="ffhq100: another place for the archive, https.")] = None,
    file_id: Annotated[str | None, typer.Option(help="ffhq100: another Google Drive file.")] = None,
    sha256: Annotated[str | None, typer.Option(help="ffhq100: the hash the archive must have.")] = None,
    json: Json = False,
) -> None:
    """Download and verify a data set; a broken download is resumed by the same command."""
    from dataclasses import asdict

    from naign_ext.data import download_dataset

    found = download_dataset(
        name,
        data_root,
        url=url,
        file_id=file_id,
        sha256=sha256,
        progress=say,
    )
    if json:
        print_json(asdict(found))
        return
    results().print(
        f"{found.name}: {found.images} images, {found.bytes:,} bytes from {found.source}", soft_wrap=True
    )
    results().print(f"in {found.path}", soft_wrap=True)
    if found.sha256:
        results().print(f"SHA-256 {found.sha256}", soft_wrap=True)
    results().print(f"licence: {found.licence}", soft_wrap=True)
