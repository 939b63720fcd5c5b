from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from models import release as release_module
from models.calibration import Platt
from models.errors import ReleaseInvalid
from models.formats import load_format
from models.formats.proxy_grm import ProxyGrm
from models.formats.thinking import R1Reward
from models.prompts import DEFAULT_DIR, PROXY_LAYOUTS, read_prompts
from models.release import SHIPPED_DIR, ReleaseConfig, control_tokens, load_release

SHIPPED = sorted(path.parent.name for path in SHIPPED_DIR.glob("*/release.toml"))


def fingerprint(folder):
    return load_release(str(folder)).fingerprint


def test_a_release_is_read_from_its_folder(release_folder):
    release = load_release(str(release_folder))
    assert release.config.name == "small"
    assert release.config.purpose == "production"
    assert release.config.context_tokens == 1024
    assert release.config.sampling.judgement_tokens == 64
    assert release.config.images.most_pixels == 3136
    assert release.config.calibration.at("full", "given") == Platt(temperature=1.5)
    assert release.config.calibration.at("verdict", "given") == Platt()
    assert release.config.labels == ("1", "2")
    assert release.judge.folder == release_folder / "judge"
    assert release.judge.prompts["write_rubric"].system == "Compare."


def test_a_release_without_prompts_of_its_own_has_the_default_ones(release_folder):
    shutil.rmtree(release_folder / "prompts")
    assert load_release(str(release_folder)).judge.prompts == read_prompts(DEFAULT_DIR)


def test_the_text_transform_knows_every_added_token(release_folder):
    release = load_release(str(release_folder))
    assert set(release.judge.neutralise.special_tokens) == {
        "<|im_start|>",
        "<|im_end|>",
        "<|image_pad|>",
        "<tool_call>",
    }
    assert release.judge.neutralise("<tool_call></eval>").attempts == 2


def test_a_tokenizer_without_added_tokens_has_no_control_tokens(release_folder):
    (release_folder / "judge" / "tokenizer.json").write_text('{"model": {}}')
    assert control_tokens(release_folder / "judge") == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_release_loads_by_the_name_of_its_folder(name):
    release = load_release(name)
    assert release.config.name == name
    assert release.judge.folder == SHIPPED_DIR / name / "judge"
    assert len(release.judge.neutralise.special_tokens) >= 3


def test_the_embedded_release_is_for_demonstration():
    assert load_release("tiny").config.purpose == "demo"


# Plain models


def test_a_plain_model_folder_is_a_judge_with_default_prompts(model_folder):
    release = load_release(str(model_folder))
    assert release.config.name == "My-Model-7B"
    assert release.config.purpose == "production"
    assert release.config.base_model == str(model_folder)
    assert release.judge.folder == model_folder
    assert release.judge.prompts == read_prompts(DEFAULT_DIR)


@pytest.mark.parametrize(
    "folder_name", ["My Model (v2)", "x" * 80, "_model", ".model", "-model", "模型", "модель-7B"]
)
def test_a_plain_model_folder_may_have_any_name(model_folder, folder_name):
    folder = model_folder.rename(model_folder.parent / folder_name)
    name = load_release(str(folder)).config.name
    assert ReleaseConfig(name=name, purpose="demo", base_model="").name == name


def test_a_plain_model_may_be_named_with_a_slash_at_the_end(model_folder):
    assert load_release(f"{model_folder}/").config.name == "My-Model-7B"


@pytest.mark.parametrize("name", [".", "./"])
def test_the_folder_one_stands_in_can_be_a_release(release_folder, monkeypatch, name):
    monkeypatch.chdir(release_folder)
    assert load_release(name).config.name == "small"


def test_the_folder_one_stands_in_can_be_a_plain_model(model_folder, monkeypatch):
    monkeypatch.chdir(model_folder)
    assert load_release("./").judge.folder.resolve() == model_folder


def test_a_folder_is_preferred_to_a_hub_id_of_the_same_name(model_folder, monkeypatch):
    monkeypatch.chdir(model_folder.parent.parent)
    name = f"{model_folder.parent.name}/{model_folder.name}"
    assert load_release(name).judge.folder.resolve() == model_folder


def test_a_home_folder_may_be_written_with_a_tilde(model_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(model_folder.parent))
    assert load_release("~/My-Model-7B").judge.folder == model_folder


def test_a_hub_id_is_downloaded(model_folder, monkeypatch):
    asked = []

    def download(repo_id):
        asked.append(repo_id)
        return str(model_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    release = load_release("Some-Org/Some-VL-7B")
    assert asked == ["Some-Org/Some-VL-7B"]
    assert release.config.name == "Some-VL-7B"
    assert release.config.base_model == "Some-Org/Some-VL-7B"
    assert release.judge.folder == model_folder


@pytest.mark.parametrize("cause", [LocalEntryNotFoundError("offline"), OSError("no route")])
def test_a_hub_that_cannot_be_reached_is_an_invalid_release(monkeypatch, cause):
    def download(repo_id):
        raise cause

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ReleaseInvalid, match="'org/model' is not a folder here") as caught:
        load_release("org/model")
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("name", ["two  words/model", "tiny/", "org/-model", "org/" + "x" * 200])
def test_a_name_that_no_hub_id_can_have_is_an_invalid_release(name):
    with pytest.raises(ReleaseInvalid):
        load_release(name)


# What cannot be loaded


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ReleaseInvalid) as caught:
        load_release("no-such-release")
    assert "'no-such-release'" in str(caught.value)
    assert str(SHIPPED) in str(caught.value)
    assert "tiny" in SHIPPED


@pytest.mark.parametrize(
    "name", ["", "..", "a\0b", "x" * 300, "/no/such/folder", "~/no/such/folder", "a/b/c"]
)
def test_a_name_that_is_nothing_is_an_invalid_release(name):
    with pytest.raises(ReleaseInvalid):
        load_release(name)


def test_a_folder_that_is_neither_release_nor_model_is_refused(tmp_path):
    with pytest.raises(ReleaseInvalid, match=r"has neither release\.toml nor a model's config"):
        load_release(str(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_judge_with_a_file_missing_is_refused(release_folder, missing):
    (release_folder / "judge" / missing).unlink()
    with pytest.raises(ReleaseInvalid, match=f"judge has no {missing}"):
        load_release(str(release_folder))


def test_a_release_without_its_judge_is_refused(release_folder):
    shutil.rmtree(release_folder / "judge")
    with pytest.raises(ReleaseInvalid, match=r"judge has no config\.json"):
        load_release(str(release_folder))


@pytest.mark.parametrize("missing", ["write_rubric.txt", "rubric_given.txt"])
def test_a_release_with_a_prompt_missing_is_refused(release_folder, missing):
    (release_folder / "prompts" / missing).unlink()
    with pytest.raises(ReleaseInvalid, match=f"{missing} cannot be read"):
        load_release(str(release_folder))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "small"', "name = small", "release.toml"),
        ('name = "small"', 'name = "small', "release.toml"),
        ('name = "small"', 'name = "small"\nname = "twice"', "release.toml"),
        ('name = "small"\n', "", "name"),
        ('"small"', '"with blanks"', "name"),
        ('"small"', '"../up"', "name"),
        ('"production"', '"fun"', "purpose"),
        ("context_tokens = 1024", "context_tokens = 1", "context_tokens"),
        ("context_tokens = 1024", 'labels = ["1"]', "labels"),
        ("context_tokens = 1024", "proxy_tokens = 1", "proxy_tokens"),
        ("most_pixels = 3136", "most_pixels = 1", "most_pixels"),
        ("maximum = 1", "maximum = -1", "maximum"),
        ("temperature = 1.5", "temperature = 0", "temperature"),
    ],
)
def test_a_malformed_release_file_is_refused_with_the_place(release_folder, old, new, complaint):
    path = release_folder / "release.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ReleaseInvalid, match=complaint) as caught:
        load_release(str(release_folder))
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_empty_release_file_is_refused(release_folder):
    (release_folder / "release.toml").write_bytes(b"")
    with pytest.raises(ReleaseInvalid, match="base_model"):
        load_release(str(release_folder))


def test_a_release_file_that_is_not_utf_8_is_refused(release_folder):
    (release_folder / "release.toml").write_bytes(b'name = "\xff"\n')
    with pytest.raises(ReleaseInvalid, match=r"release\.toml"):
        load_release(str(release_folder))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"added_tokens": [{}]}'])
def test_a_malformed_tokenizer_makes_a_release_invalid(release_folder, content):
    (release_folder / "judge" / "tokenizer.json").write_text(content)
    with pytest.raises(ReleaseInvalid, match=r"tokenizer\.json"):
        _ = load_release(str(release_folder)).judge.neutralise


# The proxy


def test_a_release_without_a_proxy_folder_has_none(release_folder):
    release = load_release(str(release_folder))
    assert release.proxy is None
    assert release.roles == (release.judge,)


def test_a_proxy_has_weights_a_prompt_and_control_tokens_of_its_own(proxy_release_folder):
    release = load_release(str(proxy_release_folder))
    assert release.roles == (release.judge, release.proxy)
    assert release.proxy.folder == proxy_release_folder / "proxy"
    assert set(release.judge.prompts) == {"write_rubric", "rubric_given"}
    assert set(release.proxy.prompts) == {"proxy"}
    assert release.config.proxy.tokens == 48
    assert release.proxy.neutralise("<think>").attempts == 1
    assert release.judge.neutralise("<think>").attempts == 0


def test_a_release_without_prompts_of_its_own_asks_the_proxy_with_the_default_one(
    proxy_release_folder,
):
    shutil.rmtree(proxy_release_folder / "prompts")
    proxy = load_release(str(proxy_release_folder)).proxy
    assert proxy.prompts == read_prompts(DEFAULT_DIR, PROXY_LAYOUTS)


def test_a_proxy_without_a_prompt_among_the_releases_own_is_refused(proxy_release_folder):
    (proxy_release_folder / "prompts" / "proxy.txt").unlink()
    with pytest.raises(ReleaseInvalid, match=r"has a proxy, but no prompt for it: add") as caught:
        load_release(str(proxy_release_folder))
    assert str(proxy_release_folder / "prompts" / "proxy.txt") in str(caught.value)
    assert str(DEFAULT_DIR / "proxy.txt") in str(caught.value)


def test_a_proxy_table_without_a_proxy_is_refused(proxy_release_folder):
    shutil.rmtree(proxy_release_folder / "proxy")
    with pytest.raises(ReleaseInvalid, match=r"\[proxy\] table, but there is no .*/proxy"):
        load_release(str(proxy_release_folder))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_proxy_with_a_file_missing_is_refused(proxy_release_folder, missing):
    (proxy_release_folder / "proxy" / missing).unlink()
    with pytest.raises(ReleaseInvalid, match=f"proxy has no {missing}"):
        load_release(str(proxy_release_folder))


def test_a_proxy_without_weights_is_refused(proxy_release_folder):
    (proxy_release_folder / "proxy" / "model.safetensors").unlink()
    with pytest.raises(ReleaseInvalid, match="proxy has no weights"):
        load_release(str(proxy_release_folder))


@pytest.mark.parametrize("table", ["tokens = 1", "tokens = 64\nvotes = 3", "calibration = 2"])
def test_a_malformed_proxy_table_is_refused(proxy_release_folder, table):
    path = proxy_release_folder / "release.toml"
    path.write_text(path.read_text().replace("tokens = 48", table))
    with pytest.raises(ReleaseInvalid, match=r"release\.toml"):
        load_release(str(proxy_release_folder))


def test_a_folder_named_proxy_inside_a_plain_model_is_none(model_folder):
    (model_folder / "proxy").mkdir()
    assert load_release(str(model_folder)).proxy is None


# Judges trained elsewhere


def in_format(folder, name):
    """The release, its judge in another output format; prompts of its own it has none."""
    path = folder / "release.toml"
    path.write_text(f'output_format = "{name}"\n{path.read_text()}')
    shutil.rmtree(folder / "prompts")
    return folder


@pytest.mark.parametrize("name", ["r1_reward", "unified_reward_think"])
def test_a_judge_of_another_output_format_is_asked_with_its_prompts(release_folder, name):
    judge = load_release(str(in_format(release_folder, name))).judge
    assert judge.output_format is load_format(name)
    assert judge.prompts == read_prompts(DEFAULT_DIR / name, ("no_rubric", "rubric_given"))
    assert judge.neutralise("</think><eval>").text == "‹/think›<eval>"


def test_such_a_release_may_have_prompts_of_its_own(release_folder):
    own = (release_folder / "prompts" / "write_rubric.txt").read_text()
    in_format(release_folder, "r1_reward")
    (release_folder / "prompts").mkdir()
    (release_folder / "prompts" / "no_rubric.txt").write_text(own)
    with pytest.raises(ReleaseInvalid, match=r"rubric_given\.txt cannot be read"):
        load_release(str(release_folder))
    given = own.replace("{response_1}", "{rubric}\n</rubric>\n{response_1}")
    (release_folder / "prompts" / "rubric_given.txt").write_text(given)
    assert load_release(str(release_folder)).judge.prompts["no_rubric"].system == "Compare."


def test_its_proxy_still_writes_in_our_own_grammar(proxy_release_folder):
    proxy = load_release(str(in_format(proxy_release_folder, "r1_reward"))).proxy
    assert proxy.output_format is load_format("proxy_grm")
    assert proxy.prompts == read_prompts(DEFAULT_DIR, PROXY_LAYOUTS)
    assert proxy.neutralise("</eval>").text == "‹/eval›"


def test_an_unknown_output_format_is_refused(release_folder):
    with pytest.raises(ReleaseInvalid, match="no output format is called 'r2'"):
        load_release(str(in_format(release_folder, "r2")))


def test_the_output_format_and_its_prompts_change_the_fingerprint(release_folder, tmp_path):
    found = {fingerprint(release_folder)}
    for name in ("r1_reward", "unified_reward_think"):
        copy = shutil.copytree(release_folder, tmp_path / name)
        found.add(fingerprint(in_format(copy, name)))
    assert len(found) == 3


def test_another_reading_of_either_grammar_changes_the_fingerprint(
    proxy_release_folder, monkeypatch
):
    in_format(proxy_release_folder, "r1_reward")
    found = {fingerprint(proxy_release_folder)}
    monkeypatch.setattr(R1Reward, "revision", 1_000)
    found.add(fingerprint(proxy_release_folder))
    monkeypatch.setattr(release_module, "GRAMMAR_REVISION", 1_000)
    found.add(fingerprint(proxy_release_folder))
    assert len(found) == 3


# The fingerprint


def test_a_fingerprint_is_32_hex_digits_and_stays(release_folder):
    first = fingerprint(release_folder)
    assert len(first) == 32
    assert set(first) <= set("0123456789abcdef")
    assert fingerprint(release_folder) == first


@pytest.mark.parametrize(
    "file",
    [
        "prompts/write_rubric.txt",
        "prompts/rubric_given.txt",
        "judge/model.safetensors",
        "judge/config.json",
        "judge/tokenizer.json",
    ],
)
def test_one_byte_of_a_prompt_weight_or_config_changes_the_fingerprint(release_folder, file):
    before = fingerprint(release_folder)
    path = release_folder / file
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(release_folder) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("context_tokens = 1024", "context_tokens = 1025"),
        ("judgement_tokens = 64", "judgement_tokens = 65"),
        ("most_pixels = 3136", "most_pixels = 6272"),
        ("temperature = 1.5", "temperature = 1.25"),
        ("[calibration.full.given]", "[calibration.full.swapped]"),
        ("context_tokens = 1024", 'context_tokens = 1024\nlabels = ["A", "B"]'),
        ("context_tokens = 1024", "context_tokens = 1024\nstructured_output = false"),
    ],
)
def test_one_setting_changes_the_fingerprint(release_folder, old, new):
    before = fingerprint(release_folder)
    path = release_folder / "release.toml"
    path.write_text(path.read_text().replace(old, new))
    assert fingerprint(release_folder) != before


def test_a_new_weight_file_changes_the_fingerprint(release_folder):
    before = fingerprint(release_folder)
    (release_folder / "judge" / "model-2.safetensors").write_bytes(b"")
    assert fingerprint(release_folder) != before


def test_a_weight_file_under_another_name_changes_the_fingerprint(release_folder):
    before = fingerprint(release_folder)
    weights = release_folder / "judge" / "model.safetensors"
    weights.rename(weights.with_name("other.safetensors"))
    assert fingerprint(release_folder) != before


def test_a_file_in_another_folder_changes_the_fingerprint(release_folder):
    template = release_folder / "judge" / "chat_template.jinja"
    template.write_text("{{ messages }}")
    before = fingerprint(release_folder)
    (release_folder / "judge" / "additional_chat_templates").mkdir()
    template.rename(release_folder / "judge" / "additional_chat_templates" / template.name)
    assert fingerprint(release_folder) != before


@pytest.mark.parametrize(
    ("where", "revision"), [(ProxyGrm, "revision"), (release_module, "NEUTRALISE_REVISION")]
)
def test_another_reading_of_the_same_text_changes_the_fingerprint(
    release_folder, monkeypatch, where, revision
):
    before = fingerprint(release_folder)
    monkeypatch.setattr(where, revision, 1_000)
    assert fingerprint(release_folder) != before


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "judge/README.md",
        "judge/figure.png",
        "judge/LICENSE",
        "judge/NOTICE",
        "judge/.gitattributes",
        "judge/.gitignore",
        "judge/.git/HEAD",
        "judge/.cache/huggingface/download/model.safetensors.metadata",
    ],
)
def test_what_judges_nothing_does_not_change_the_fingerprint(release_folder, file):
    before = fingerprint(release_folder)
    path = release_folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something else")
    assert fingerprint(release_folder) == before


def test_comments_and_order_in_the_release_file_do_not_change_the_fingerprint(release_folder):
    before = fingerprint(release_folder)
    path = release_folder / "release.toml"
    first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join(["# A comment", second, "", first, *rest]))
    assert fingerprint(release_folder) == before


def test_a_copy_has_the_same_fingerprint(release_folder, tmp_path):
    copy = shutil.copytree(release_folder, tmp_path / "elsewhere" / "copy")
    assert fingerprint(copy) == fingerprint(release_folder)


def test_links_to_files_have_the_fingerprint_of_the_files(release_folder, tmp_path):
    linked = shutil.copytree(release_folder, tmp_path / "linked")
    weights = linked / "judge" / "model.safetensors"
    blob = weights.rename(tmp_path / "0123abcd")
    weights.symlink_to(blob)
    assert fingerprint(linked) == fingerprint(release_folder)


def test_a_plain_model_has_the_same_fingerprint_wherever_it_lies(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "another" / "place")
    assert fingerprint(copy) == fingerprint(model_folder)


def test_a_plain_model_and_a_change_of_its_weights_have_different_fingerprints(model_folder):
    before = fingerprint(model_folder)
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps(config | {"layers": 2}))
    assert fingerprint(model_folder) != before


@pytest.mark.parametrize(
    "file",
    [
        "prompts/proxy.txt",
        "prompts/write_rubric.txt",
        "proxy/model.safetensors",
        "proxy/config.json",
        "proxy/tokenizer.json",
        "judge/model.safetensors",
    ],
)
def test_one_byte_of_either_role_changes_the_one_fingerprint(proxy_release_folder, file):
    before = fingerprint(proxy_release_folder)
    path = proxy_release_folder / file
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(proxy_release_folder) != before


@pytest.mark.parametrize(
    "table", ["tokens = 47", "tokens = 48\n[proxy.calibration.given]\nbias = 1"]
)
def test_how_the_proxy_is_asked_changes_the_fingerprint(proxy_release_folder, table):
    before = fingerprint(proxy_release_folder)
    path = proxy_release_folder / "release.toml"
    path.write_text(path.read_text().replace("tokens = 48", table))
    assert fingerprint(proxy_release_folder) != before


def test_a_prompt_for_a_proxy_that_is_not_there_changes_nothing(release_folder):
    before = fingerprint(release_folder)
    (release_folder / "prompts" / "proxy.txt").write_text("anything")
    assert fingerprint(release_folder) == before


def test_a_proxy_with_the_judges_own_files_changes_the_fingerprint(release_folder):
    before = fingerprint(release_folder)
    (release_folder / "prompts" / "proxy.txt").write_text((DEFAULT_DIR / "proxy.txt").read_text())
    (release_folder / "proxy").symlink_to(release_folder / "judge")
    assert fingerprint(release_folder) != before


def test_judge_and_proxy_exchanged_have_another_fingerprint(proxy_release_folder):
    before = fingerprint(proxy_release_folder)
    judge, proxy = proxy_release_folder / "judge", proxy_release_folder / "proxy"
    judge.rename(proxy_release_folder / "aside")
    proxy.rename(judge)
    (proxy_release_folder / "aside").rename(proxy)
    assert fingerprint(proxy_release_folder) != before
