"""The programs that mistakes are planted into, and the honest ones in which nothing is to be found."""

from __future__ import annotations

BASES = {  # letter -> what it is, and its words; a later word takes the place of an earlier one with its key
    "D": "digits, MLP with batch norm and dropout",
    "F": "Fashion-MNIST of 3,000, CNN with dropout",
    "R": "diabetes, MLP, a regression",
    "C": "breast_cancer, MLP with layer norm",
    "W": "wine, a small tanh MLP, SGD",
    "N": "Fashion-MNIST of 1,000, ResNet",
    "T": "a table of tumours in a file, MLP",
    "P": "pictures of digits in folders, CNN with batch norm",
}
WORDS = {
    "D": ["data=own_digits", "model=mlp", "model.norm=batch", "regulariser=[dropout]", "epochs=10"],
    "F": ["data=own_fashion_mnist", "data.subset=3000", "data.download=false", "model=cnn", "regulariser=[dropout]",
          "epochs=4"],
    "R": ["data=own_diabetes", "model=mlp", "model.hidden=[32]", "epochs=30", "batch_size=32"],
    "C": ["data=own_breast_cancer", "model=mlp", "model.norm=layer", "model.hidden=[32]", "epochs=20", "batch_size=32"],
    "W": ["data=own_wine", "model=mlp", "model.hidden=[16]", "model.activation=tanh", "optimiser=sgd", "optimiser.lr=0.1",
          "epochs=20", "batch_size=16"],
    "N": ["data=own_fashion_mnist", "data.subset=1000", "data.download=false", "model=resnet", "model.channels=[8,16]",
          "model.blocks=1", "batch_size=16", "epochs=10", "optimiser.lr=0.01"],
    "T": ["data=csv", "data.file=../tables/clean.csv", "data.target=diagnosis", "model=mlp", "model.hidden=[32]", "epochs=15",
          "batch_size=32"],
    "P": ["data=image_folder", "data.root=../pictures/clean", "data.size=8", "data.channels=1", "data.workers=0", "model=cnn",
          "model.channels=[16,16]", "model.kernel=3", "model.norm=batch", "epochs=10", "batch_size=32"],
}  # fmt: skip

HONEST = {  # base -> name -> words
    "D": {
        "as it is": [],
        "sgd": ["optimiser=sgd", "optimiser.lr=0.1"],
        "sgd with momentum, cosine": ["optimiser=sgd", "optimiser.momentum=0.9", "optimiser.lr=0.02", "epochs=15"],
        "constant rate": ["schedule=constant"],
        "one cycle": ["schedule=one_cycle", "optimiser.lr=0.01"],
        "warm-up": ["schedule.warmup=0.1"],
        "tanh": ["model.activation=tanh", "model.norm=none"],
        "sigmoid": ["model.activation=sigmoid", "model.norm=none", "model.hidden=[64]", "optimiser.lr=0.01", "epochs=20"],
        "no norm": ["model.norm=none"],
        "layer norm": ["model.norm=layer", "model.activation=gelu"],
        "label smoothing": ["regulariser=[dropout,label_smoothing]"],
        "dropout of a half": ["regulariser.dropout.rate=0.5", "epochs=20"],
        "mixup": ["regulariser=[mixup]", "epochs=15"],
        "large batch": ["batch_size=512", "optimiser.lr=0.01", "epochs=30"],
        "small train set": ["data.subset=300", "batch_size=32", "epochs=20"],
        "log-softmax": ["model._target_=faulty.model.ends_in_log_softmax"],
        "imbalance, scored by balanced accuracy":
            ["data._target_=faulty.data.imbalanced", "objective=val/balanced_accuracy", "epochs=20"],
        "weight decay": ["optimiser.weight_decay=0.1"],
        "averaged weights": ["ema=0.95", "epochs=20"],
        "bf16": ["precision=bf16"],
        "clipped, accumulated": ["grad_clip=1.0", "accumulate=2", "epochs=20"],
        "linear": ["model=linear", "regulariser=[]", "optimiser.lr=0.01", "epochs=15"],
        "he": ["init=he", "model.norm=none"],
        "cnn, shifted": ["model=cnn", "model.norm=batch", "augment=[shift]", "augment.shift.pixels=1", "epochs=12"],
    },
    "F": {
        "as it is": [],
        "sgd with momentum": ["optimiser=sgd", "optimiser.momentum=0.9", "optimiser.lr=0.03"],
        "tanh": ["model.activation=tanh"],
        "batch norm": ["model.norm=batch"],
        "no dropout": ["regulariser=[]"],
        "constant rate": ["schedule=constant"],
        "one cycle": ["schedule=one_cycle", "optimiser.lr=0.005"],
        "label smoothing": ["regulariser=[label_smoothing]"],
        "large batch": ["batch_size=256", "optimiser.lr=0.004", "epochs=6"],
        "small train set": ["data.subset=800", "epochs=8"],
        "log-softmax": ["model._target_=faulty.model.ends_in_log_softmax"],
        "imbalance, scored by balanced accuracy":
            ["data._target_=faulty.data.imbalanced", "objective=val/balanced_accuracy"],
        "flipped": ["augment=[flip]"],
        "cutmix": ["regulariser=[cutmix]", "epochs=6"],
        "mlp": ["model=mlp"],
        "resnet": ["model=resnet", "model.channels=[8,16]", "model.blocks=1", "data.subset=1500", "batch_size=32",
                   "regulariser=[]", "epochs=8", "optimiser.lr=0.01"],
    },
    "R": {
        "as it is": [],
        "sgd": ["optimiser=sgd", "optimiser.lr=0.05"],
        "tanh": ["model.activation=tanh"],
        "sigmoid": ["model.activation=sigmoid", "optimiser.lr=0.01"],
        "batch norm": ["model.norm=batch", "optimiser.lr=0.003"],
        "constant rate": ["schedule=constant"],
        "huber": ["loss=huber"],
        "absolute error": ["loss=l1"],
        "dropout": ["regulariser=[dropout]"],
        "penalised": ["regulariser=[l2]", "regulariser.l2.kernel=0.001"],
        "large batch": ["batch_size=128", "optimiser.lr=0.01"],
        "small train set": ["data.subset=120", "epochs=40"],
        "linear": ["model=linear", "optimiser.lr=0.03"],
        "default network": ["model.hidden=[128,64]", "epochs=20"],
    },
    "C": {"as it is": [], "sgd": ["optimiser=sgd", "optimiser.lr=0.1"], "batch norm": ["model.norm=batch"]},
    "W": {"as it is": [], "adamw": ["optimiser=adamw", "optimiser.lr=0.01"], "relu": ["model.activation=relu"]},
    "T": {"as it is": [], "sgd": ["optimiser=sgd", "optimiser.lr=0.1"]},
    "P": {"as it is": [], "no norm": ["model.norm=none", "optimiser.lr=0.003"]},
    "N": {"as it is": [], "one cycle": ["schedule=one_cycle", "optimiser.lr=0.02"]},
}  # fmt: skip


def words(base: str, *changes: list[str]) -> list[str]:
    """The overrides of a program: those of its base, changed; of two with one key the later stands."""
    chosen: dict[str, str] = {}
    for word in [*WORDS[base], *(word for change in changes for word in change)]:
        key = word.partition("=")[0].lstrip("+")
        if key in ("model", "optimiser", "schedule", "regulariser"):  # another option: what was set of the earlier goes
            chosen = {name: kept for name, kept in chosen.items() if not name.startswith(key + ".")}
        chosen[key] = word
    return list(chosen.values())
