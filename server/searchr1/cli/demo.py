"""``searchr1 demo``: the data of the demos, the bundled world Atlas and the leads of Wikipedia."""

from functools import partial
from typing import Annotated

import typer

from searchr1.cli.options import DATA, DataDir

demo_app = typer.Typer(no_args_is_help=True, help="Write what the demos serve.")


@demo_app.command("build")
def demo_build(
    data_dir: DataDir = DATA,
    demonstrations: Annotated[int, typer.Option(help="Demonstrations for the warm-up; 0 writes the world alone.")] = 0,
    renamed_worlds: Annotated[
        int, typer.Option(min=0, help="Worlds with new names that half of the demonstrations come from.")
    ] = 0,
    renamed_share: Annotated[
        float,
        typer.Option(min=0.1, max=1, help="Share of a renamed world's countries that are renamed and asked about."),
    ] = 1.0,
    readings: Annotated[
        int, typer.Option(min=0, help="Readings for the warm-up: passages and what they say, of still other worlds.")
    ] = 0,
    talk: Annotated[
        bool,
        typer.Option("--talk", help="Word questions as people do, half of them in conversations, and add chatter."),
    ] = False,
    renamed: Annotated[
        bool, typer.Option("--renamed", help="Write the train split alone, all names new: what rewards are drawn from.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the questions, demonstrations and new names.")] = 0,
) -> None:
    """Write the Atlas world: corpus, questions, and demonstrations if asked for."""
    from searchr1.atlas.build import build, build_renamed, build_world

    if renamed and demonstrations:
        raise SystemExit("searchr1 demo build: --renamed writes no demonstrations. Give one of the two.")
    if (renamed_worlds or readings or talk) and not demonstrations:
        raise SystemExit(
            "searchr1 demo build: --renamed-worlds, --readings and --talk add to demonstrations. "
            "Give --demonstrations too."
        )
    if renamed_share < 1 and not renamed_worlds:
        raise SystemExit("searchr1 demo build: --renamed-share is of renamed worlds. Give --renamed-worlds too.")
    atlas = data_dir / (f"atlas-renamed-{seed}" if renamed else "atlas")
    if renamed:
        written = build_renamed(atlas, seed=seed)
    elif demonstrations:
        report = build(
            atlas,
            num_demonstrations=demonstrations,
            num_renamed_worlds=renamed_worlds,
            renamed_share=renamed_share,
            num_readings=readings,
            talk=talk,
            seed=seed,
        )
        written = report.written
    else:
        written = build_world(atlas, seed=seed)
    for name, lines in written.items():
        typer.echo(f"{atlas / name}: {lines:,} lines")


@demo_app.command("build-wiki")
def demo_build_wiki(data_dir: DataDir = DATA) -> None:
    """Make the Wikipedia demo of its packages; scripts/setup-demo-wiki downloads them to DATA_DIR/wiki/packages."""
    from searchr1.demo.wiki.build import build_wiki
    from searchr1.demo.wiki.bundle import Place

    build_wiki(Place(data_dir), partial(typer.echo, err=True))
