"""Recipes: what loads, and how invalid recipes and settings are refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import chosen_methods, with_methods
from peft_methods.models.config import kind_of
from peft_methods.recipes.loading import apply_setting, find_recipe, load_recipe, shipped_recipes
from peft_methods.recipes.schema import Budget, ModelSpec, Recipe
from peft_methods.utils.errors import OptionError
from peft_methods.utils.validation import build


def test_load_recipe_loads_every_shipped_recipe() -> None:
    assert "embedded" in shipped_recipes()
    for name in shipped_recipes():
        assert load_recipe(name).name == name


def test_recipe_embedded_has_the_documented_budget_and_methods() -> None:
    recipe = load_recipe("embedded")
    assert (recipe.data.train, recipe.data.validation, recipe.data.test) == (400, 150, 840)
    assert (recipe.budget.epochs, recipe.budget.batch_size, recipe.budget.seed_list()) == (
        2,
        8,
        (0, 1, 2),
    )
    assert list(recipe.methods) == [
        "full",
        "head_only",
        "bitfit",
        "lora",
        "qlora",
        "ia3",
        "adapter",
        "adapter_fusion",
    ]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("budget.epoch=2", "unknown key 'budget.epoch'. Did you mean 'epochs'?"),
        ("dta.train=3", "unknown key 'dta'. Did you mean 'data'?"),
        ("budget.epochs=0", "budget.epochs = 0 should be greater than or equal to 1"),
        ('budget.epochs="3"', "budget.epochs = '3' should be a valid integer"),
        ("budget.epochs=true", "budget.epochs = True should be a valid integer"),
        ("data.train=some", "data.train = 'some' should be"),
        ("budget.precision=fp23", "should be 'fp32', 'tf32', 'bf16' or 'fp16'"),
        (
            "budget.padding=longest",
            "budget.padding = 'longest' should be 'dynamic', 'fixed' or 'packed'",
        ),
        (
            "budget.gradient_accumulation=0",
            "budget.gradient_accumulation = 0 should be greater than or equal to 1",
        ),
        (
            "budget.gradient_checkpointing=1",
            "budget.gradient_checkpointing = 1 should be a valid boolean",
        ),
        (
            "budget.early_stopping=-1",
            "budget.early_stopping = -1 should be greater than or equal to 0",
        ),
        (
            "data.test_split=dev",
            "data.test_split = 'dev' should be 'test', 'validation' or 'train'",
        ),
        ("data.validation_by=text", "data.validation_by = 'text' should be 'rows' or 'sentences'"),
        ("data.leakage_limit=2", "data.leakage_limit = 2 should be less than or equal to 1"),
        ("budget.warmup_ratio=nan", "budget.warmup_ratio = nan should be a finite number"),
        ("budget=3", "budget = 3 should be a section"),
        ("name=../x", "name = '../x' should be letters, digits, '.', '_' and '-'"),
        ("epochs", "should have the form KEY=VALUE"),
        ("name.x=1", "'name' is a value, not a section"),
        ("model.weights=foo", "model.weights = 'foo' should be 'pretrained' or 'random'"),
        ("data.classes=1", "data.classes = 1 should be greater than or equal to 2"),
        ("data.token_lengths=7", "data.token_lengths = 7 should be a list"),
        (
            "data.token_lengths=[3, 2]",
            "data.token_lengths = [3, 2] should be two or more whole numbers >= 1 in asc",
        ),
        ("data.token_lengths=[7]", "data.token_lengths = [7] should be two or more whole numbers"),
        (
            "data.token_lengths=[-3, 2]",
            "data.token_lengths = [-3, 2] should be two or more whole numbers",
        ),
        ("data.token_lengths=[]", "data.token_lengths = [] should be two or more whole numbers"),
        ("data.token_lengths=[1, 2.5]", "data.token_lengths = 2.5 should be a valid integer"),
    ],
)
def test_load_recipe_refuses_a_wrong_setting_by_name(setting: str, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_recipe("embedded", [setting])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_recipe_applies_settings_in_every_section() -> None:
    recipe = load_recipe(
        "embedded",
        ["budget.seeds=[4, 7]", "data.train=all", "methods.lora.rank=2", "title=hello world"],
    )
    assert recipe.budget.seed_list() == (4, 7)
    assert recipe.data.train == "all"
    assert recipe.methods["lora"]["rank"] == 2
    assert recipe.title == "hello world"


def test_load_recipe_reports_invalid_toml_in_one_line_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = 'x'\n[model\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"broken\.toml is not valid TOML: .*line 2"):
        load_recipe(str(path))


def test_load_recipe_names_a_missing_key(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(
        "name = 'x'\n[model]\nsource = 'y'\n[budget]\nepochs = 1\nbatch_size = 2\n[methods.full]\n",
        encoding="utf-8",
    )
    with pytest.raises(OptionError, match=r"short\.toml: 'data' is missing; add it"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["embeded", "nowhere.toml", "a/b"])
def test_find_recipe_lists_shipped_recipes_for_an_unknown_name(name: str) -> None:
    with pytest.raises(OptionError, match="embedded"):
        find_recipe(name)


def test_sizes_are_upper_limits_where_other_data_replaces_the_recipes() -> None:
    recipe = load_recipe("embedded", model="/m", data="/d")
    assert (recipe.model.source, recipe.data.source) == ("/m", "/d")
    assert recipe.data.sizes == "at_most"
    assert any("sizes (400/150/840) are upper limits" in note for note in recipe.notes)
    assert load_recipe("embedded").data.sizes == "exact"


def test_sizes_stay_exact_where_a_recipe_or_a_setting_says_so(tmp_path: Path) -> None:
    text = find_recipe("embedded").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("[data]", '[data]\nsizes = "exact"'), encoding="utf-8")
    for recipe in (
        load_recipe(str(path), data="/d"),
        load_recipe("embedded", ["data.sizes=exact"], data="/d"),
    ):
        assert recipe.data.sizes == "exact"
        assert any("sizes (400/150/840) are exact" in note for note in recipe.notes)
    assert load_recipe("embedded", ["data.sizes=at_most"]).data.sizes == "at_most"


def test_load_recipe_with_other_data_drops_columns_and_keeps_split_roles() -> None:
    original, moved = load_recipe("sst2_bert"), load_recipe("sst2_bert", data="/d")
    assert (moved.data.test_split, moved.data.validation_by) == (
        original.data.test_split,
        original.data.validation_by,
    )
    assert any(
        "test is taken from its validation split, if it has one" in note for note in moved.notes
    )
    trec = load_recipe("trec_bert", data="/d").data
    assert (trec.text, trec.label, trec.revision, trec.leakage_limit) == (
        None,
        None,
        None,
        0.01,
    )


def test_another_task_has_its_own_metric_unless_settings_name_one() -> None:
    recipe = load_recipe("embedded", ["task=regression"])
    assert (recipe.data.select_by, recipe.expect.margin_over_majority) == (None, 0.0)
    kept = load_recipe("embedded", ["task=regression", "data.select_by=mae"])
    assert kept.data.select_by == "mae"
    same = load_recipe("embedded", ["task=text_classification"])
    assert (same.data.select_by, same.expect.margin_over_majority) == ("accuracy", 0.10)


SIZES = {
    "imdb_roberta": ("FacebookAI/roberta-base", 3000, 500, 6500, 512, 5, 16),
    "imdb_mpnet": ("sentence-transformers/all-mpnet-base-v2", 3000, 500, 6500, 512, 5, 16),
    "imdb_decoder": ("HuggingFaceTB/SmolLM2-135M", 3000, 500, 6500, 512, 3, 16),
    "sst2_bert": ("google-bert/bert-base-uncased", 15000, 872, 872, 128, 15, 32),
    "sst2_bert_as_published": ("google-bert/bert-base-uncased", 15000, 872, 3000, 128, 15, 32),
    "trec_bert": ("google-bert/bert-base-uncased", "all", 500, 500, 64, 10, 32),
}


@pytest.mark.parametrize("name", list(SIZES))
def test_gpu_recipe_has_the_published_model_sizes_and_budget(name: str) -> None:
    recipe = load_recipe(name)
    data, budget = recipe.data, recipe.budget
    assert (
        recipe.model.source,
        data.train,
        data.validation,
        data.test,
        data.max_length,
        budget.epochs,
        budget.batch_size,
    ) == SIZES[name]
    assert (recipe.gpu, budget.precision, budget.weight_decay, len(budget.seed_list())) == (
        True,
        "bf16",
        0.01,
        3,
    )
    methods = [method.name for method in chosen_methods(recipe, None)]
    assert methods == [name for name in METHODS if name in recipe.methods]
    assert len(methods) >= (7 if name == "imdb_decoder" else 8)


@pytest.mark.parametrize("name", list(SIZES))
def test_gpu_recipe_names_the_source_of_each_learning_rate(name: str) -> None:
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    assert all("  # " in line for line in lines if "learning_rate =" in line)
    assert lines[0].startswith(("# Reproduces ", "# Stands in for "))


RECIPE = """
name = "mine"
model.source = "{model}"
budget = {{ epochs = 1, batch_size = 2 }}
data = {{ source = "{data}", train = 8, validation = 4, test = 4 }}
{methods}
"""


def recipe_with(
    folder: Path, methods: str, *settings: str, model: str = "a/bert", data: str = "a/b"
) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(RECIPE.format(methods=methods, model=model, data=data), encoding="utf-8")
    return load_recipe(str(path), settings)


def names_and_rates(recipe: Recipe, names: list[str] | None = None) -> dict[str, float]:
    return {method.name: method.learning_rate for method in chosen_methods(recipe, names)}


@pytest.mark.parametrize(
    "methods",
    [
        'methods = ["lora", "full"]',
        "[methods.lora]\n[methods.full]",
        '[methods]\ninclude = "full"\n[methods.lora]',
        "[methods.full]\nlearning_rate = 2e-5\n[methods.lora]",
    ],
)
def test_methods_are_a_list_or_sections_with_default_rates(tmp_path: Path, methods: str) -> None:
    assert names_and_rates(recipe_with(tmp_path, methods)) == {"full": 2e-5, "lora": 5e-4}


def test_all_leaves_out_methods_without_defaults_and_notes_it(tmp_path: Path) -> None:
    recipe = with_methods(recipe_with(tmp_path, 'methods = "all"'))
    assert list(recipe.methods) == [name for name in METHODS if name != "adapter_fusion"]
    (note,) = recipe.notes
    assert note.startswith('AdapterFusion is left out of "all": methods.adapter_fusion.sources has')
    assert with_methods(recipe) == recipe


def test_all_trains_the_fusion_on_bundled_data(tmp_path: Path) -> None:
    recipe = recipe_with(
        tmp_path, 'methods = "all"', model="bundled:minilm", data="bundled:movie_reviews"
    )
    methods = {method.name: method for method in chosen_methods(recipe, None)}
    assert list(methods) == list(METHODS)
    shipped = {method.name: method for method in chosen_methods(load_recipe("embedded"))}
    for method in shipped.values():
        assert methods[method.name].learning_rate == method.learning_rate
        assert methods[method.name].head_learning_rate == method.head_learning_rate
    assert methods["adapter_fusion"] == shipped["adapter_fusion"]
    assert not with_methods(recipe).notes


def test_a_section_changes_a_method_of_all(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, 'methods = "all"', "methods.lora.rank=2")
    assert {method.name: method for method in chosen_methods(recipe)}["lora"].rank == 2  # type: ignore[attr-defined]
    kept = load_recipe("sst2_bert", ["methods.include=all", "methods.lora.rank=2"])
    own, all_rates = names_and_rates(load_recipe("sst2_bert")), names_and_rates(kept)
    assert {name: all_rates[name] for name in own} == own


def test_a_named_method_needs_no_section(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "[methods.full]", model="a/bert-tiny")
    assert names_and_rates(recipe) == {"full": 1e-4}
    assert names_and_rates(recipe, ["ia3"]) == {"ia3": 4e-2}
    assert set(names_and_rates(recipe, ["all"])) == set(METHODS) - {"adapter_fusion"}
    with pytest.raises(OptionError, match=r"methods.adapter_fusion\]: 'sources' is missing"):
        chosen_methods(recipe, ["adapter_fusion"])
    with pytest.raises(OptionError, match=r"unknown method 'loar'\. Did you mean 'lora'"):
        chosen_methods(recipe, ["loar"])


def test_the_heads_default_rate_goes_with_the_default_rate(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "[methods.ia3]", model="a/bert-tiny")
    assert chosen_methods(recipe)[0].head_learning_rate == 2e-3
    own = recipe_with(tmp_path, "[methods.ia3]\nlearning_rate = 1e-3", model="a/bert-tiny")
    assert chosen_methods(own)[0].head_learning_rate is None


@pytest.mark.parametrize("methods", ["methods = 3", "methods = [1]", "[methods]\ninclude = 2"])
def test_methods_of_a_wrong_type_are_refused(tmp_path: Path, methods: str) -> None:
    with pytest.raises(OptionError, match=r'mine\.toml: methods = .* should be "all", a list'):
        recipe_with(tmp_path, methods)


def names(recipe: Recipe, *words: str) -> list[str]:
    return [method.name for method in chosen_methods(recipe, words)]


def test_methods_are_chosen_by_family_and_pattern(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "[methods.full]\n[methods.lora]\nrank = 3")
    low_rank = [name for name in METHODS if METHODS[name].info.family == "low_rank"]
    assert names(recipe, "low_rank") == low_rank
    assert names(recipe, "*lora") == [name for name in METHODS if name.endswith("lora")]
    assert names(recipe, "head*", "qlora", "full") == ["full", "head_only", "qlora"]
    chosen = {one.name: one for one in chosen_methods(recipe, ["low_rank"])}
    assert chosen["lora"].rank == 3  # type: ignore[attr-defined]  # its section holds
    listed = recipe_with(tmp_path, 'methods = ["full", "low_rank"]')
    assert [one.name for one in chosen_methods(listed)] == ["full", *low_rank]


def test_groups_leave_out_methods_without_defaults_and_note_it(tmp_path: Path) -> None:
    recipe = with_methods(recipe_with(tmp_path, "[methods.full]"), ["adapter*"])
    assert "adapter" in recipe.methods
    assert "adapter_fusion" not in recipe.methods
    assert any(one.startswith('AdapterFusion is left out of "adapter*"') for one in recipe.notes)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "low_rnak",
            r"unknown method 'low_rnak'\. Did you mean 'low_rank'\? There are \d+ methods",
        ),
        ("xyz*", r"no method has a name like 'xyz\*'\. .*these families of them: selective, "),
        ("[", r"no method has a name like '\['\. There are \d+ methods"),
        ("", r"unknown method ''\. There are \d+ methods"),
        ("lorra*", r"no method has a name like 'lorra\*'\. Did you mean 'lora\*'\? There are"),
        ("*_rnak", r"no method has a name like '\*_rnak'\. There are"),
        ("LoRA*", r"no method has a name like 'LoRA\*'\. Did you mean 'lora\*'\?"),
        ("*DORA", r"no method has a name like '\*DORA'\. Did you mean '\*dora'\?"),
        ("LORA", r"unknown method 'LORA'\. Did you mean 'lora'\?"),
        ("LoRA+", r"unknown method 'LoRA\+'\. Did you mean 'lora_plus'\?"),
        ("full fine-tuning", r"unknown method 'full fine-tuning'\. Did you mean 'full'\?"),
        ("lora ia3", r"unknown method 'lora ia3'\. Write several names as lora,ia3\. There are"),
        ("lora;low_rank", r"'lora;low_rank'\. Write several names as lora,low_rank\."),
        ("!lora", r"unknown method '!lora'\. Methods cannot be excluded: name those to keep\."),
        ("-low_rank", r"method '-low_rank'\. Methods cannot be excluded: name those to keep\."),
        ("!lora*", r"no method has a name like '!lora\*'\. Methods cannot be excluded"),
    ],
)
def test_groups_that_match_nothing_name_what_there_is(
    tmp_path: Path, word: str, expected: str
) -> None:
    with pytest.raises(OptionError, match=expected):
        chosen_methods(recipe_with(tmp_path, "[methods.full]"), [word])


def test_a_family_has_no_settings(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "[methods.low_rank]\nrank = 4")
    expected = r"stands for \d+ methods and has no settings of its own. Set them in the methods'"
    with pytest.raises(OptionError, match=expected) as raised:
        with_methods(recipe)
    assert not raised.value.setting  # to set the family's section would be wrong again


def test_unknown_methods_of_a_list_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown method 'bitfti'\. Did you mean 'bitfit'\?"):
        chosen_methods(recipe_with(tmp_path, 'methods = ["bitfti"]'))


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("bundled:minilm", "small_encoder"),
        ("roberta-large", "encoder"),
        ("google-bert/bert-base-uncased", "encoder"),
        ("prajjwal1/bert-tiny", "small_encoder"),
        ("someone/unknown", "encoder"),
        ("HuggingFaceTB/SmolLM2-135M", "decoder"),
        ("Qwen/Qwen2.5-14B-Instruct", "decoder"),
        ("openai-community/gpt2-medium", "decoder"),
        ("facebook/opt-125m", "decoder"),
        ("microsoft/phi-2", "decoder"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "decoder"),
        ("Qwen/Qwen3-Embedding-0.6B", "encoder"),
        ("optimum/roberta-base", "encoder"),
        ("someone/sophia-base", "encoder"),
        ("google/flan-t5-base", "encoder"),
    ],
)
def test_the_kind_of_a_model_follows_from_its_sizes_or_name(source: str, kind: str) -> None:
    assert kind_of(ModelSpec(source)) == kind


def test_the_kind_of_a_local_model_follows_from_its_config(tmp_path: Path) -> None:
    for config, kind in (
        ({"hidden_size": 384}, "small_encoder"),
        ({"dim": 768}, "encoder"),
        ({"hidden_size": 64, "architectures": ["LlamaForCausalLM"]}, "decoder"),
        ({"architectures": ["Qwen3ForSequenceClassification"], "model_type": "qwen3"}, "decoder"),
        ([], "encoder"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert kind_of(ModelSpec(str(tmp_path))) == kind


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        "epochs",
        "batch_size",
        "seeds",
        "precision",
        "weight_decay",
        "schedule",
        "early_stopping",
        "padding",
        "epoch",
        "x",
    ]
)


@given(st.dictionaries(keys, plain, max_size=5))
def test_build_returns_a_budget_or_refuses_the_values_by_name(values: dict[str, object]) -> None:
    try:
        budget = build(Budget, values, "here")
    except OptionError as error:
        assert str(error).startswith("here: ")
        assert "\n" not in str(error)
    else:
        assert budget.epochs >= 1
        assert budget.batch_size >= 1
        assert budget.seed_list()


@given(st.text(max_size=30))
def test_apply_setting_accepts_or_refuses_any_text(text: str) -> None:
    values = tomllib.loads(find_recipe("embedded").read_text(encoding="utf-8"))
    before = json.dumps(values)
    try:
        apply_setting(values, text)
    except OptionError as error:
        assert "\n" not in str(error).replace(repr(text), "")
    else:
        assert "=" in text
        assert before  # the rest of the recipe is checked when it is built


def test_load_recipe_accepts_only_random_or_pretrained_weights() -> None:
    assert load_recipe("embedded").has_quality
    assert not load_recipe("embedded", weights="random").has_quality
    assert (
        load_recipe("embedded", ["model.weights=random"], weights="pretrained").model.weights
        == "random"
    )
    with pytest.raises(
        OptionError,
        match=r"unknown weights 'randm'\. Did you mean 'random'\? Allowed: pretrained, random",
    ):
        load_recipe("embedded", weights="randm")


def test_load_recipe_with_other_data_drops_token_lengths() -> None:
    assert load_recipe("imdb_roberta").data.token_lengths is not None
    assert load_recipe("imdb_roberta", data="/d").data.token_lengths is None
    assert load_recipe(
        "imdb_roberta", ["data.token_lengths=[3, 9]"], data="/d"
    ).data.token_lengths == (3, 9)


def test_load_recipe_proposes_no_more_rows_before_the_data_is_read() -> None:
    """Only V109 knows whether the limit left any out."""
    notes = load_recipe("embedded", model="/m", data="/d").notes
    assert not any("to train on all" in note for note in notes)


def test_old_names_of_bundled_sources_are_read(tmp_path: Path) -> None:
    """Version 0.1 wrote `embedded:` before them, in recipes, options and saved models."""
    text = find_recipe("embedded").read_text(encoding="utf-8")
    path = tmp_path / "embedded.toml"
    path.write_text(text.replace("bundled:", "embedded:"), encoding="utf-8")
    old, today = load_recipe(str(path)), load_recipe("embedded")
    (fusion,) = chosen_methods(old, ["adapter_fusion"])
    assert (old.model, old.data) == (today.model, today.data)
    assert [fusion] == chosen_methods(today, ["adapter_fusion"])
    given = load_recipe("sst2_bert", model="embedded:minilm", data="embedded:tweets")
    assert (given.model.source, given.data.source) == ("bundled:minilm", "bundled:tweets")
    assert "embedded:" not in " ".join(given.notes)
    changed = load_recipe("embedded", ["data.source=embedded:tweets"])
    assert changed.data.source == "bundled:tweets"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("budget.seeds=[]", "[] should be a list of 1 or more items or a valid integer."),
        ("budget.seeds=['a']", "['a'] should be a valid integer."),
    ],
)
def test_bad_list_is_described_in_plain_words(setting: str, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_recipe("embedded", [setting])
    assert str(caught.value) == f"embedded.toml: budget.seeds = {expected}"
