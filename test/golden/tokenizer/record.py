#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Trains a small tokenizer of each family with Hugging Face's library and records what it makes of awkward texts.

    pip install tokenizers==0.22.1
    python3 test/golden/tokenizer/record.py

Writes NAME.json, a tokenizer.json, and NAME.cases.json beside this script; texts.json holds the texts."""
import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).parent

CORPUS = ["The quick brown fox jumps over the lazy dog. It's 2024, isn't it? They'll say WE'LL, I'd say I've 12345 reasons.",
          "Once upon a time there was a little girl who said: \"hello, hello world\"!\n\n    indented    text\r\n\ttabs\n",
          "naïve café, Ångström, über, señor; Москва и мир; γλώσσα; שלום עולם; مرحبا بالعالم; 日本語の文字; 한국어 글자; 你好，世界",
          "int main() { return 0; }  // 1 + 1 == 2; x = y[3]; e = 2.71828 <tag attr='v'> 👍🏽 👩‍👩‍👧 🎉"] * 3

TEXTS = [
    "", " ", "  ", "   \n  ", "\n", "\n\n\n", "\r\n", " \r\n\r\n x", "\t\tx", "a", " a", "a ", "  a  b   c    ", "hello world",
    "Hello, World! It's what they're saying: I'm, you've, he'll, she'd.", "IT'S WE'LL YOU'VE I'D THEY'RE I'M 'S 'LL 'Ve 'rE",
    "don't'll's'S 'ſ it’s", "cafe\u0301 café", "A\u030a Å \u212b", "q\u0307\u0323 q\u0323\u0307", "e\u0301\u0302\u0323\u0301" * 3,
    "\u1100\u1161\u11a8 각 \uac00\u11a8", "한국어 글자", "ẛ̣ ﬁ ① ｶﾞ ㍿ ﷺ ½ ² ⅷ", "👍🏽👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ☺️ ☺", "שָׁלוֹם עולם", "مرحبا بالعالم ١٢٣",
    "abc\u200bdef\u200cghi\u200djkl\u2060mno\ufeffpqr", "a\u0085b\u2028c\u2029d\u00a0e\u202ff\u3000g\u1680h\u180ei\u2003\u2003j",
    "\u0000\u0001\u0007\u001b[0m\u007f\u009f", "a\u000bb\u000cc", "0 12 123 1234 12345 1234567890", "x1y22z333 3.14159 1,000,000",
    "१२३ ٣٤٥ ៤៥ 𝟘𝟙𝟚 Ⅳ ൰", "a" * 60, "ab" * 50, " " * 100, "x" + " " * 37 + "y", "\n" * 23 + " " * 9 + "\n", "!!!??...---===>>>",
    "foo_bar-baz.qux/quux\\corge", "日本語のテキストと漢字", "你好，世界！", "𠜎𠜱 \U0001f9ff \U0010ffff \ufffd \uffff", "İstanbul ISTANBUL ΑΣ ΣΑΣ ß ẞ Ǆ",
    "<s>hello</s>", " <s> hello </s> ", "x<|end|>y", "x <|end|>  y", "<|end|><|end|>", "word", "a word b", "words", "sword word", "word.word",
    "word\u0301 word_ 9word", "  Left  x", "x  Right  x", "<|en", "<unk>", "▁x ▁ x▁y", "<0x41> <0x0A>", "Ġx Ċ", "Trailing newline\n", "'", "'' s 's",
    "The quick brown fox", "mixed 日本 and English, עם עברית", "\u0301start", "a\u0301\u0301\u0301", "\U0001d15e \u0344 \u0958", "ﬀ ﬃ ĳ",
]


def added(content, special=True, normalized=False, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized,
            "special": special, **flags}


# One of each kind; all after the vocabulary.
ADDED = [added("<|end|>"), added("word", special=False, single_word=True), added("Left", special=False, lstrip=True),
         added("Right", rstrip=True), added("<|e", special=False), added("Café", special=False, normalized=True)]

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                r"|\s+(?!\S)|\s+")
QWEN2_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")
O200K_SPLIT = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
               r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
               r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train(pre_tokenizer, alphabet=(), size=420, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())


def finish(document, special=("<s>",), extra=ADDED):
    """Adds the special tokens and ADDED behind the vocabulary, or where it has them."""
    vocabulary = document["model"]["vocab"]
    document["added_tokens"] = []
    next_id = max(vocabulary.values()) + 1
    for token in [added(name) for name in special] + list(extra):
        known = vocabulary.get(token["content"])
        document["added_tokens"].append({"id": next_id if known is None else known, **token})
        next_id += known is None
    return document


def template(document, before, behind=()):
    ids = {t["content"]: t["id"] for t in document["added_tokens"]}
    piece = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [*map(piece, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(piece, behind)],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in {*before, *behind}}}


def byte_level(pre_tokenizer, **model):
    document = train(pre_tokenizer, pre_tokenizers.ByteLevel.alphabet())
    document["decoder"] = json.loads(decoders.ByteLevel().__getstate__())
    document["model"].update(model)
    return document


def gpt2():
    document = finish(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)), ["<|endoftext|>"])
    document["post_processor"] = json.loads(processors.ByteLevel(trim_offsets=False).__getstate__())
    return document


def roberta():
    document = finish(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), ["<s>", "</s>"])
    ids = {t["content"]: t["id"] for t in document["added_tokens"]}
    document["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", ids["</s>"]], "cls": ["<s>", ids["<s>"]],
                                  "trim_offsets": True, "add_prefix_space": True}
    return document


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3():
    document = finish(byte_level(split_then_bytes(LLAMA3_SPLIT), ignore_merges=True), ["<s>"])
    del document["model"]["merges"][40:60]  # words of the vocabulary that merging does not reach
    bytes_only = json.loads(processors.ByteLevel(trim_offsets=False).__getstate__())
    document["post_processor"] = {"type": "Sequence", "processors": [bytes_only, template(document, ["<s>"])]}
    return document


def qwen2():
    document = finish(byte_level(split_then_bytes(QWEN2_SPLIT)), [])
    document["normalizer"] = {"type": "NFC"}
    return document


def o200k():
    return finish(byte_level(split_then_bytes(O200K_SPLIT)), [])


def smollm():
    return finish(byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])), ["<|endoftext|>"])


def falcon():
    return finish(byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])))


def sentence_piece(byte_count, unknown=("<unk>",), spelled_as_strings=False):
    """Llama 2's model: special tokens, bytes, then what was learnt."""
    trained = train(pre_tokenizers.Metaspace(), size=300)
    names = [*unknown, "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(byte_count))]
    names += sorted(trained["model"]["vocab"], key=trained["model"]["vocab"].get)
    trained["model"].update(vocab={name: i for i, name in enumerate(names)}, byte_fallback=True, fuse_unk=True,
                            unk_token=unknown[0] if unknown else None)
    if spelled_as_strings:
        trained["model"]["merges"] = [" ".join(merge) for merge in trained["model"]["merges"]]
    trained["pre_tokenizer"] = None
    trained["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return trained


def llama2():
    document = finish(sentence_piece(256, spelled_as_strings=True), ["<unk>", "<s>", "</s>"])
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    document["post_processor"] = template(document, ["<s>"], ["</s>"])
    return document


def few_bytes():
    """Some characters have all their bytes, others become the unknown token, not fused; special tokens are normalised."""
    document = finish(sentence_piece(0xE5), ["<unk>"], [dict(t, normalized=True) for t in ADDED])
    document["model"]["fuse_unk"] = False
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    return document


def few_bytes_fused():
    document = few_bytes()
    document["model"]["fuse_unk"] = True
    return document


def mistral():
    document = finish(sentence_piece(256), ["<unk>", "<s>", "</s>"])
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    document["post_processor"] = template(document, ["<s>"])
    return document


def metaspace():
    """No bytes, no unknown token: what is not in the vocabulary vanishes."""
    document = finish(sentence_piece(0, unknown=()), ["<s>"])
    document["model"]["byte_fallback"] = False
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    document["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return document


def words():
    """Whatever the others leave out; no decoder."""
    steps = [pre_tokenizers.Whitespace(), pre_tokenizers.Split("-", "merged_with_previous"),
             pre_tokenizers.Split(Regex(r"[a-c]"), "merged_with_next"), pre_tokenizers.Split(Regex(r"\d+\w"), "removed", invert=False),
             pre_tokenizers.Split("o", "contiguous", invert=True)]
    document = finish(train(pre_tokenizers.Sequence(steps)), ["<unk>"], [dict(t, normalized=True) for t in ADDED])
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": " "}, {"type": "NFD"}]}
    document["pre_tokenizer"] = json.loads(pre_tokenizers.Sequence(steps).__getstate__())
    return document


FAMILIES = [gpt2, roberta, llama3, qwen2, o200k, smollm, falcon, llama2, few_bytes, few_bytes_fused, mistral, metaspace, words]


def record(family):
    document = family()
    tokenizer = Tokenizer.from_str(json.dumps(document))
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        cases.append({"ids": ids, "plain": tokenizer.encode(text, add_special_tokens=False).ids,
                      "decoded": tokenizer.decode(ids), "withSpecial": tokenizer.decode(ids, skip_special_tokens=False)})
    # Ids in no sensible order: characters cut in the middle, runs of bytes that are no UTF-8.
    chance, known = random.Random(2), sorted(tokenizer.get_vocab().values())
    nonsense = [[chance.choice(known) for _ in range(chance.randrange(1, 12))] for _ in range(60)]
    decoded = [{"ids": ids, "decoded": tokenizer.decode(ids)} for ids in nonsense]
    return document, {"tokenizers": __version__, "texts": cases, "decode": decoded}


def dump(value, path):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    dump(TEXTS, FOLDER / "texts.json")
    for family in FAMILIES:
        document, cases = record(family)
        dump(document, FOLDER / f"{family.__name__}.json")
        dump(cases, FOLDER / f"{family.__name__}.cases.json")


if __name__ == "__main__":
    main()
