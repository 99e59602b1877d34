"""import: labelled images of other programs become images of the project, under their own names."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.interchange.imported import ImportedBox, ImportedImage
from oiyolo.interchange.readers import READERS
from oiyolo.operations.import_data import tables
from oiyolo.project.imports import image_id_of
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages.evaluate import inputs
from tests.support.labelled import draw, voc_folder, voc_object, voc_xml, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.interchange.imported import Problem
    from tests.conftest import Cli, Site

OFFLINE = "http://127.0.0.1:9"
"""An address at which nothing responds."""


def draw_noise(path: Path, seed: int, size_wh: tuple[int, int] = (40, 20)) -> Path:
    """Write a picture that is no near-duplicate of another seed's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = Image.frombytes("L", (8, 8), bytes((seed * 37 + k * k * 91) % 256 for k in range(64)))
    noise.convert("RGB").resize(size_wh).save(path, quality=95)
    return path


@pytest.fixture
def bolts(tmp_path: Path) -> Path:
    """Return a folder of labelImg: ten images with a bolt or a nut each."""
    folder = tmp_path / "bolts"
    for k in range(10):
        draw_noise(folder / f"IMG {k}.jpg", k)
        name = "bolt" if k % 2 else "nut"
        write(folder / f"IMG {k}.xml", voc_xml(voc_object(name), f"IMG {k}.jpg"))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a new project, which cannot reach Open Images."""
    monkeypatch.setenv("OIYOLO_OPENIMAGES_BASE_URL", OFFLINE)
    monkeypatch.setenv("OIYOLO_IMAGES_MIRROR_URL", OFFLINE)
    monkeypatch.setenv("OIYOLO_IMAGES_SIZE", "32x32")
    monkeypatch.setenv("OIYOLO_SPLIT_LOOK", "false")
    return tmp_path / "project"


class FakeReader:
    """A reader of given records."""

    def __init__(self, folder: Path, records: Sequence[ImportedImage | Problem]) -> None:
        self.folder, self._records = folder, records

    def class_order(self) -> Sequence[str]:
        return ["nut", "bolt"]

    def read(self) -> Iterator[ImportedImage | Problem]:
        yield from self._records


def use_reader(
    patch: pytest.MonkeyPatch, folder: Path, records: Sequence[ImportedImage | Problem]
) -> None:
    monkey = {**READERS, "voc": lambda *_: FakeReader(folder, records)}
    patch.setattr("oiyolo.interchange.readers.READERS", monkey)


def fake_image(
    folder: Path, name: str, box: ImportedBox | None = None, **more: Any
) -> ImportedImage:
    path = folder / name
    if not path.exists():
        draw_noise(path, len(list(folder.rglob("*"))))
    return ImportedImage(path, name, (40, 20), boxes=(box,) if box else (), **more)


NUT = ImportedBox("nut", (0.25, 0.25, 0.75, 0.75))


def test_a_new_project_has_the_classes_and_a_copy_of_each_image(bolts: Path, project: Path) -> None:
    result = oiyolo.import_images("voc", bolts, project)
    assert (result.record.images, result.record.boxes, result.exit_code) == (10, 10, 0)
    config = oiyolo.open_project(project).config.dataset
    assert (config.classes, config.subsets) == (("bolt", "nut"), ())
    image_id = image_id_of("bolts", "IMG 3.jpg")
    copy = project / "data" / "images" / f"{image_id}.jpg"
    assert copy.read_bytes() == (bolts / "IMG 3.jpg").read_bytes()
    assert not copy.samefile(bolts / "IMG 3.jpg")
    history = oiyolo.why("IMG 3.jpg", project)
    assert (history.image_id, history.row["source"]) == (image_id, "import:bolts")
    assert history.row["original_name"] == "bolts/IMG 3.jpg"
    assert oiyolo.why(str(bolts / "IMG 3.jpg"), project).image_id == image_id


def test_the_second_import_does_nothing(
    bolts: Path, project: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    oiyolo.import_images("voc", bolts, project)
    before = digests(project)
    again = oiyolo.import_images("voc", bolts, project)
    assert not again.changed
    # The lock's file says who held it last.
    assert {**digests(project), "data/.lock": ""} == {**before, "data/.lock": ""}
    plan = oiyolo.import_images("voc", bolts, project, dry_run=True)
    assert plan.facts["images"] == 10
    assert not plan.actions


def test_a_dry_run_writes_nothing(bolts: Path, project: Path) -> None:
    plan = oiyolo.import_images("voc", bolts, project, dry_run=True)
    assert (plan.facts["images"], plan.facts["boxes"]) == (10, 10)
    assert not project.exists()


def test_the_dataset_is_split_and_described_without_a_claim_about_open_images(
    bolts: Path, project: Path
) -> None:
    oiyolo.import_images("voc", bolts, project, licence="CC0", credit="Ada")
    split = oiyolo.split(project)
    assert sum(split.images.values()) == 10
    assert split.sources is not None
    assert set(split.sources.images) == {"bolts"}
    # Whoever is credited for a folder does not tie its images together.
    assert split.groups > 1
    assert oiyolo.split(project, check=True).is_sound
    dataset = project / "data" / "dataset"
    texts = [(dataset / n).read_text() for n in ("DATASET.md", "CREDITS.md", "croissant.json")]
    assert not any("Google" in text or "from Open Images" in text for text in texts)
    rows = list(csv.DictReader((dataset / "CREDITS.csv").read_text().splitlines()))
    assert {(r["License"], r["Author"], r["fetched_from"]) for r in rows} == {
        ("CC0", "Ada", "import")
    }
    assert rows[0]["Title"].startswith("bolts/IMG")
    status = oiyolo.status(project)
    assert status.sources == {"bolts": 10}


def test_classes_are_renamed_and_chosen(bolts: Path, project: Path, cli: Cli) -> None:
    done = cli.ok(
        *("import", "voc", bolts, "--map", "nut=Nut", "--classes", "Nut", "--json"),
        project=project,
    )
    assert done.json["classes"] == {"Nut": {"images": 5, "boxes": 5}}
    assert done.json["class_map"] == {"nut": "Nut"}
    assert done.json["not_imported"] == {"bolt": 5}
    assert oiyolo.open_project(project).config.dataset.classes == ("Nut",)
    assert oiyolo.status(project).class_maps == {"bolts": {"nut": "Nut"}}


@pytest.mark.parametrize(
    "options",
    [
        {"class_map": ["wheel=Wheel"]},
        {"class_map": ["nut"]},
        {"classes": "wheel"},
        {"name": "../nuts"},
        {"format_name": "excel"},
    ],
)
def test_an_invalid_option_changes_nothing(
    bolts: Path, project: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        oiyolo.import_images(**{"format_name": "voc", "path": bolts, "project": project, **options})
    assert not (project / "oiyolo.toml").exists()
    assert not list((project / "data").glob("imports/*"))


def test_a_project_inside_the_imported_folder_is_refused(bolts: Path) -> None:
    with pytest.raises(UsageError):
        oiyolo.import_images("voc", bolts, bolts / "project")
    assert not (bolts / "project").exists()


@pytest.mark.slow
def test_a_name_belongs_to_one_folder_unless_it_has_moved(
    bolts: Path, project: Path, tmp_path: Path
) -> None:
    oiyolo.import_images("voc", bolts, project)
    other = voc_folder(tmp_path / "other" / "bolts")
    with pytest.raises(UsageError) as caught:
        oiyolo.import_images("voc", other, project)
    assert str(bolts) in caught.value.found
    moved = bolts.rename(tmp_path / "moved")
    assert oiyolo.import_images("voc", moved, project, name="bolts").record.folder == str(moved)


def test_what_is_skipped_is_listed_and_counts_against_the_tolerance(
    bolts: Path, project: Path, cli: Cli
) -> None:
    write(bolts / "IMG 2.xml", "<annotation>\n<object>\n</annot")
    (bolts / "IMG 4.jpg").unlink()
    done = cli("import", "voc", bolts, "--json", project=project)
    assert done.code == 3
    assert done.json["images"] == 8
    assert sum(done.json["problems"].values()) >= 2
    with (project / "data" / "imports" / "bolts" / "problems.csv").open() as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert rows["IMG 2.xml"]["line"] == "3"
    assert "IMG 4.xml" in rows
    assert "IMG 2.xml:3" in done.err
    assert oiyolo.status(project).counts.states["fetched"] == 8
    assert cli("import", "voc", bolts, "--tolerance", "0.3", project=project).code == 0


def test_nothing_is_left_of_an_import_of_nothing(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "empty" / "a.xml", "<annotation/>")
    with pytest.raises(InputFormError):
        oiyolo.import_images("voc", tmp_path / "empty", project)
    assert not (project / "oiyolo.toml").exists()
    assert not list((project / "data").glob("imports/*"))


def test_colliding_ids_are_refused_with_both_names(
    bolts: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "image_id_of", lambda *_: "a" * 16)
    with pytest.raises(InputFormError) as caught:
        oiyolo.import_images("voc", bolts, project)
    assert caught.value.found == "IMG 0.jpg and IMG 1.jpg"
    assert not (project / "oiyolo.toml").exists()


@pytest.mark.slow
def test_an_id_of_another_image_of_the_project_is_refused(
    bolts: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oiyolo.import_images("voc", bolts, project)
    taken = image_id_of("bolts", "IMG 1.jpg")
    other = voc_folder(tmp_path / "other", ["x"])
    monkeypatch.setattr(tables, "image_id_of", lambda *_: taken)
    with pytest.raises(InputFormError) as caught:
        oiyolo.import_images("voc", other, project)
    assert caught.value.found == "other/images/x.jpg and bolts/IMG 1.jpg"
    assert list(oiyolo.open_project(project).imports()) == ["bolts"]


def test_names_that_lead_out_of_the_folder_are_skipped(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    inside, outside = fake_image(folder, "a.jpg", NUT), fake_image(folder, "../b.jpg", NUT)
    use_reader(monkeypatch, folder, [inside, outside])
    result = oiyolo.import_images("voc", folder, project)
    assert (result.record.images, result.record.skipped) == (1, {"image": 1})


@pytest.mark.slow
def test_a_strangers_table_cannot_name_a_file_outside(bolts: Path, project: Path) -> None:
    oiyolo.import_images("voc", bolts, project)
    draw(bolts.parent / "secret.jpg")
    opened = oiyolo.open_project(project)
    selected = project / "data" / "selection" / "images.csv"
    text = selected.read_text().replace("IMG 3.jpg", "../secret.jpg")
    selected.write_text(text)
    summary_path = selected.with_name("selection.json")
    summary = json.loads(summary_path.read_text())
    summary["tables"]["images.csv"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    summary_path.write_text(json.dumps(summary))
    image_id = image_id_of("bolts", "IMG 3.jpg")
    (opened.images_folder / f"{image_id}.jpg").unlink()
    with opened.data_lock("test"), pytest.raises(oiyolo.UnavailableError):
        fetch_stage.run(opened)
    assert not (opened.images_folder / f"{image_id}.jpg").exists()


def test_images_keep_the_splits_of_their_source(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    splits = ["train", "valid", "test", "test", ""]
    images = [fake_image(folder, f"{k}.jpg", NUT, split=s) for k, s in enumerate(splits)]
    use_reader(monkeypatch, folder, images)
    oiyolo.import_images("voc", folder, project, keep_splits=True)
    oiyolo.split(project)
    with oiyolo.open_project(project).ledger() as ledger:
        states = ledger.column("state")
    found = [states[image_id_of("in", f"{k}.jpg")] for k in range(4)]
    assert found == splits[:4]
    assert oiyolo.split(project, check=True).is_sound


def test_difficult_boxes_are_kept_but_are_no_labels(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    hard = ImportedBox("nut", (0.0, 0.0, 0.2, 0.2), difficult=1)
    both = ImportedImage(draw_noise(folder / "a.jpg", 1), "a.jpg", (40, 20), boxes=(NUT, hard))
    only_hard = fake_image(folder, "b.jpg", hard)
    use_reader(monkeypatch, folder, [both, only_hard])
    result = oiyolo.import_images("voc", folder, project)
    assert result.excluded == {"no box left": 1}
    boxes = oiyolo.select(project).boxes
    assert boxes["dropped_because"].tolist() == ["", "difficult"]
    oiyolo.prepare(project)
    image_id = image_id_of("in", "a.jpg")
    truth = inputs.ground_truth(oiyolo.open_project(project), {image_id: (32, 32)}, ["nut"])
    assert truth.is_region.tolist() == [False, True]  # a detection there is neither right nor wrong
    kinds = {name: flags.tolist() for name, flags in truth.regions.items()}
    assert kinds == {"group_of": [False, False], "difficult": [False, True]}
    assert len(oiyolo.select(project, difficult="keep").images) == 2


def test_predicted_boxes_are_marked_and_say_nothing_about_other_classes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    guess = ImportedBox("bolt", (0.1, 0.1, 0.5, 0.5), confidence=0.6, is_predicted=True)
    images = [fake_image(folder, "a.jpg", guess), fake_image(folder, "b.jpg", NUT)]
    use_reader(monkeypatch, folder, images)
    result = oiyolo.import_images("voc", folder, project)
    assert result.record.predicted_boxes == 1
    selected = oiyolo.select(project)
    assert set(zip(selected.boxes["Source"], selected.boxes["Confidence"], strict=True)) == {
        ("predicted", 0.6),
        ("imported", 1.0),
    }
    columns = (selected.images[name].tolist() for name in ("Name", "present", "absent"))
    assert sorted(zip(*columns, strict=True)) == [("a.jpg", "bolt", ""), ("b.jpg", "nut", "bolt")]


def test_images_without_boxes_are_negatives(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    images = [fake_image(folder, "a.jpg", NUT), fake_image(folder, "empty.jpg")]
    use_reader(monkeypatch, folder, images)
    assert oiyolo.import_images("voc", folder, project).tally.without_boxes == 1
    assert len(oiyolo.select(project).images) == 1
    selected = oiyolo.select(project, negatives=1.0)
    assert selected.images.set_index("Name")["negative"].to_dict() == {
        "a.jpg": False,
        "empty.jpg": True,
    }


def test_refresh_reads_the_folder_again(bolts: Path, project: Path) -> None:
    oiyolo.import_images("voc", bolts, project)
    oiyolo.split(project)
    assert oiyolo.refresh(project).is_up_to_date
    (bolts / "IMG 0.jpg").unlink()
    (bolts / "IMG 0.xml").unlink()
    draw_noise(bolts / "IMG 1.jpg", 99, (50, 20))
    write(bolts / "IMG 1.xml", voc_xml(voc_object("bolt"), "IMG 1.jpg", (50, 20)))
    draw_noise(bolts / "new.jpg", 50)
    write(bolts / "new.xml", voc_xml(voc_object(), "new.jpg"))
    assert oiyolo.refresh(project, dry_run=True).actions
    refreshed = oiyolo.refresh(project)
    assert (refreshed.changes.images, refreshed.changes.withdrawn, refreshed.moved) == (1, 1, 0)
    copy = project / "data" / "images" / f"{image_id_of('bolts', 'IMG 1.jpg')}.jpg"
    assert copy.read_bytes() == (bolts / "IMG 1.jpg").read_bytes()
    assert oiyolo.refresh(project).is_up_to_date


@pytest.mark.slow
def test_refresh_accepts_no_great_loss_and_no_missing_folder(bolts: Path, project: Path) -> None:
    oiyolo.import_images("voc", bolts, project)
    oiyolo.split(project)
    for k in range(7):
        (bolts / f"IMG {k}.jpg").unlink()
    with pytest.raises(InputFormError):
        oiyolo.refresh(project)
    bolts.rename(bolts.parent / "unmounted")
    assert oiyolo.refresh(project).is_up_to_date
    assert oiyolo.status(project).counts.selected == 10


@pytest.mark.slow
def test_a_freed_original_is_copied_again(
    bolts: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_IMAGES_KEEP_ORIGINALS", "false")
    oiyolo.import_images("voc", bolts, project)
    oiyolo.split(project)
    assert not list((project / "data" / "images").glob("*.jpg"))
    monkeypatch.setenv("OIYOLO_IMAGES_SIZE", "64x64")
    assert oiyolo.prepare(project).missing_originals == 10
    assert oiyolo.fetch(project).new == 10
    assert oiyolo.prepare(project).new == 10


def test_a_withdrawn_image_is_named_by_its_name_and_stays_away(bolts: Path, project: Path) -> None:
    oiyolo.import_images("voc", bolts, project)
    oiyolo.split(project)
    done = oiyolo.withdraw(["bolts/IMG 5.jpg"], project)
    assert done.image_ids == [image_id_of("bolts", "IMG 5.jpg")]
    oiyolo.import_images("voc", bolts, project)
    assert oiyolo.status(project).counts.excluded == {"withdrawn": 1}
    with pytest.raises(InputFormError):
        oiyolo.withdraw(["IMG 55.jpg"], project)


@pytest.mark.slow
def test_a_name_of_several_images_is_ambiguous(bolts: Path, project: Path, tmp_path: Path) -> None:
    oiyolo.import_images("voc", bolts, project)
    draw_noise(tmp_path / "more" / "IMG 5.jpg", 70)
    write(tmp_path / "more" / "IMG 5.xml", voc_xml(voc_object(), "IMG 5.jpg"))
    oiyolo.import_images("voc", tmp_path / "more", project)
    with pytest.raises(UsageError) as caught:
        oiyolo.why("IMG 5.jpg", project)
    assert "bolts/IMG 5.jpg" in caught.value.found
    assert oiyolo.why("more/IMG 5.jpg", project).row["original_name"] == "more/IMG 5.jpg"


def test_the_same_image_in_two_sources_is_counted_and_in_one_split(
    bolts: Path, project: Path, tmp_path: Path
) -> None:
    oiyolo.import_images("voc", bolts, project)
    write(tmp_path / "more" / "x.jpg", (bolts / "IMG 5.jpg").read_bytes())
    write(tmp_path / "more" / "x.xml", voc_xml(voc_object(), "x.jpg"))
    oiyolo.import_images("voc", tmp_path / "more", project)
    split = oiyolo.split(project)
    assert split.sources is not None
    assert split.sources.identical == 2
    assert any("two sources" in note for note in split.notes)
    with oiyolo.open_project(project).ledger() as ledger:
        states = ledger.column("state")
    assert states[image_id_of("more", "x.jpg")] == states[image_id_of("bolts", "IMG 5.jpg")]


@pytest.mark.slow
def test_a_plan_and_a_lock_of_a_project_without_open_images(
    bolts: Path, project: Path, tmp_path: Path
) -> None:
    oiyolo.import_images("voc", bolts, project)
    oiyolo.split(project)
    assert oiyolo.plan(project).fetch.sources.keys() == {"import bolts"}
    lock = oiyolo.freeze(project).path
    with pytest.raises(UsageError):
        oiyolo.run(tmp_path / "rebuilt", frozen=lock, until="split")
    rebuilt = tmp_path / "rebuilt"
    oiyolo.import_images("voc", bolts, rebuilt)
    oiyolo.run(rebuilt, frozen=lock, until="split")
    assert (rebuilt / "data/dataset/split.csv").read_bytes() == (
        project / "data/dataset/split.csv"
    ).read_bytes()


@pytest.mark.slow
def test_a_project_mixes_open_images_and_an_import(
    make_project: Callable[..., Path], tmp_path: Path, site: Site
) -> None:
    folder = tmp_path / "harbour"
    for k, name in enumerate(("boot", "canoe", "crane")):
        draw_noise(folder / f"{k}.jpg", k)
        write(folder / f"{k}.xml", voc_xml(voc_object(name), f"{k}.jpg"))
    project = make_project(tmp_path / "mixed")
    alone = set(oiyolo.select(project).images["ImageID"])
    result = oiyolo.import_images("voc", folder, project, class_map={"boot": "Boat"})
    assert (result.fetched, result.other_classes) == (None, {"crane": 1})
    selected = oiyolo.select(project)
    assert selected.imports == {"harbour": {"images": 2, "boxes": 2}}
    assert alone < set(selected.images["ImageID"])
    canoe = selected.boxes[selected.boxes["ImageID"] == image_id_of("harbour", "1.jpg")]
    assert canoe["class"].tolist() == ["Boat"]
    oiyolo.fetch(project)
    oiyolo.split(project)
    status = oiyolo.status(project)
    assert list(status.sources) == ["", "harbour"]
    assert sum(status.sources.values()) == status.counts.selected - sum(
        status.counts.excluded.values()
    )
    card = (project / "data" / "dataset" / "DATASET.md").read_text()
    assert site.urls["base_url"] in card
    assert "| harbour | boot | Boat |" in card


@pytest.mark.parametrize("is_first", [True, False])
def test_images_of_an_earlier_download_are_open_images_and_not_fetched_again(
    is_first: bool, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    project = make_project(tmp_path / "mixed")
    other = make_project(tmp_path / "other")
    oiyolo.fetch(other)
    selected = oiyolo.select(other)
    fetched = sorted(path.stem for path in (other / "data" / "images").iterdir())
    with_boat = set(selected.boxes.query("`class` == 'Boat'")["ImageID"])
    copied, damaged, edited = [image_id for image_id in fetched if image_id in with_boat][:3]
    folder = tmp_path / "OID" / "train" / "Boat"
    for image_id in (copied, damaged, edited, "0123456789abcdef"):
        draw_noise(folder / f"{image_id}.jpg", int(image_id[:4], 16), (400, 200))
        name = "Sloop rigged" if image_id == edited else "Boat"
        write(folder / "Label" / f"{image_id}.txt", f"{name} 100 50 300 150\n")
    if not is_first:
        oiyolo.fetch(project)
    oiyolo.import_images("openimages", tmp_path / "OID", project)
    (folder / f"{damaged}.jpg").write_bytes(b"\xff\xd8 cut off")
    result = oiyolo.select(project, classes=["Boat", "Sloop rigged"])
    ids = set(result.images["ImageID"])
    own = {image_id_of("OID", f"train/Boat/{i}.jpg") for i in (edited, "0123456789abcdef")}
    assert {copied, damaged, *own} <= ids
    assert image_id_of("OID", f"train/Boat/{copied}.jpg") not in ids
    assert result.summary["copies"] == {"OID": 2}
    assert "2 images of Open Images copied from the import OID" in str(result)
    boxes = [table.boxes.query(f"ImageID == '{copied}'") for table in (selected, result)]
    assert boxes[0]["XMin"].tolist() == boxes[1]["XMin"].tolist()
    oiyolo.fetch(project)
    source = oiyolo.why(copied, project).row["source"]
    assert (source == "import:OID") == is_first
    assert str(oiyolo.why(damaged, project).row["source"]) == "mirror"
    image = (project / "data" / "images" / f"{copied}.jpg").read_bytes()
    assert (image == (folder / f"{copied}.jpg").read_bytes()) == is_first


POINTS = {
    "reading": "oiyolo.operations.import_data.tables.Sink._write_image",
    "before the project": "oiyolo.operations.import_data.create",
    "before the tables": "oiyolo.project.imports.install",
    "between the renames": "pathlib.Path.rename",
    "after the renames": "shutil.rmtree",
    "before the selection": "oiyolo.stages.select.run",
    "before the copies": "oiyolo.stages.fetch.run",
}
CHILD = """
import os, signal, sys, importlib
import oiyolo
module, name = sys.argv[3].rsplit(".", 1)
try:
    owner = importlib.import_module(module)
except ModuleNotFoundError:
    module, kind = module.rsplit(".", 1)
    owner = getattr(importlib.import_module(module), kind)
calls = int(sys.argv[4])
original = getattr(owner, name)
def kill(*arguments, **options):
    global calls
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    calls -= 1
    return original(*arguments, **options)
setattr(owner, name, kill)
oiyolo.import_images("voc", sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_an_import_whole_or_absent(
    bolts: Path, project: Path, point: str, *, is_first: bool
) -> None:
    if not is_first:
        oiyolo.import_images("voc", bolts, project)
        draw_noise(bolts / "new.jpg", 50)
        write(bolts / "new.xml", voc_xml(voc_object(), "new.jpg"))
    calls = {"reading": "3", "between the renames": "0" if is_first else "1"}.get(point, "0")
    command = [sys.executable, "-c", CHILD, str(bolts), str(project), POINTS[point], calls]
    killed = subprocess.run(command, check=False, env={**os.environ}, capture_output=True)
    if is_first or point != "before the project":  # an existing project is not created
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    for record in oiyolo.open_project(project).imports().values() if not is_first else ():
        assert record.images in {10, 11}
    again = oiyolo.import_images("voc", bolts, project)
    assert again.record.images == (10 if is_first else 11)
    assert oiyolo.status(project).counts.states["fetched"] == again.record.images
    assert not list((project / "data" / "imports").glob(".*"))
    assert not oiyolo.import_images("voc", bolts, project).changed
