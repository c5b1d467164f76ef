"""Tables and pictures on disk, for the programs that read files: clean ones, and the same spoiled."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

PICTURES = 600


def write(home: Path) -> None:
    """home/tables/*.csv of 569 tumours and home/pictures/<set>/…/<digit>/*.png of 600 digits."""
    tables(home / "tables")
    pictures(home / "pictures")


def tables(folder: Path) -> None:
    """clean; numbered: sorted by diagnosis, its line number a column; coded: a code that follows from the diagnosis."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    names = [name.replace(" ", "_") for name in source.feature_names]
    words = source.target_names[source.target]
    columns = {name: source.data[:, place].round(5) for place, name in enumerate(names)}
    by_word = np.argsort(words, kind="stable")
    code = np.where(source.target == 1, "K12", "C50")
    twice = np.sort(np.concatenate([np.arange(len(words)), np.random.default_rng(0).choice(len(words), 200)]))
    save(folder / "clean.csv", columns | {"diagnosis": words})
    numbered = {name: column[by_word] for name, column in columns.items()}
    save(folder / "numbered.csv", {"number": np.arange(len(words))} | numbered | {"diagnosis": words[by_word]})
    save(folder / "coded.csv", columns | {"billing": code, "diagnosis": words})
    save(folder / "twice.csv", {name: column[twice] for name, column in (columns | {"diagnosis": words}).items()})


def save(path: Path, columns: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def pictures(folder: Path) -> None:
    """clean; darker: another camera took those of val; filed_twice: a fifth of the files lie under two digits."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * 15).astype(np.uint8)
    for row in range(PICTURES):
        image, label, name = Image.fromarray(images[row]), labels[row], f"{row:04}.png"
        part = "val" if row % 4 == 0 else "test" if row % 4 == 1 else "train"
        places = [f"clean/{label}", f"filed_twice/{label}", f"darker/{part}/{label}"]
        if row % 5 == 0:
            places.append(f"filed_twice/{(label + 1) % 10}")
        for place in places:
            path = folder / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (image.point(lambda value: value // 4) if "darker/val" in place else image).save(path)
