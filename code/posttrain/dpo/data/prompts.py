"""Everyday questions to sample answers for, from templates; some families for testing only.

A small model can say something about each of them in a few sentences. Half of the test prompts
come from families of templates that training never sees; the other half fill the templates of
training with values that training never sees.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from posttrain.sft.data.duplicates import in_words, same_words_key

_FOODS = (
    "bread", "rice", "honey", "cheese", "apples", "tomatoes", "onions", "potatoes", "eggs",
    "coffee", "tea", "bananas", "carrots", "mushrooms", "fish", "salad", "butter", "milk",
    "pasta", "soup", "garlic", "strawberries", "lemons", "chocolate",
)  # fmt: skip
_PAIRS = (
    ("tea", "coffee"), ("a bike", "a car"), ("a cat", "a dog"), ("a book", "a film"),
    ("rice", "pasta"), ("butter", "oil"), ("a train", "a plane"), ("wool", "cotton"),
    ("gas", "induction"), ("a laptop", "a tablet"), ("the sea", "the mountains"),
    ("an alarm clock", "a phone alarm"), ("a shower", "a bath"), ("running", "swimming"),
    ("paper notes", "notes on a phone"), ("cash", "a bank card"), ("a tent", "a cabin"),
    ("fresh herbs", "dried herbs"), ("a pen", "a pencil"), ("a gym", "a park"),
    ("white bread", "brown bread"), ("frozen peas", "canned peas"), ("apples", "oranges"),
    ("a house plant", "cut flowers"), ("a guitar", "a piano"), ("chess", "checkers"),
    ("early mornings", "late evenings"), ("city life", "country life"), ("glass", "plastic"),
    ("a backpack", "a suitcase"), ("a map", "a navigation app"), ("soap", "shower gel"),
    ("a sofa", "an armchair"), ("curtains", "blinds"), ("a rug", "a wooden floor"),
    ("email", "a phone call"), ("a quiz", "an essay"), ("podcasts", "radio"),
)  # fmt: skip
_TASKS = (
    "boil an egg", "sharpen a kitchen knife", "clean a window", "remove a coffee stain",
    "fold a shirt", "water a cactus", "pack a suitcase", "cook rice", "peel garlic",
    "wash a wool sweater", "iron a shirt", "tie a tie", "plant tomatoes", "store onions",
    "make iced tea", "fix a squeaky door", "clean a keyboard", "dry wet shoes",
    "ripen an avocado", "keep cut flowers fresh", "remove a sticker", "cut an onion",
    "clean a rusty pan", "hang a picture", "change a light bulb", "make a bed",
    "fall asleep faster", "wake up early", "remember names", "learn new words",
    "save water at home", "save money on food", "study for an exam", "write a thank-you note",
    "start a fire in a fireplace", "calm a barking dog", "bathe a cat", "brush teeth properly",
    "stop hiccups", "treat a small burn", "clean muddy boots", "read more books",
    "draw a straight line", "measure a room", "wrap a gift", "choose a ripe melon",
    "freeze bread", "thaw frozen meat", "whip cream", "poach an egg", "roast potatoes",
    "sew on a button", "unclog a sink", "clean a mirror", "pump up a bike tire",
    "keep a lawn green", "start a small garden", "take a sharp photo", "speak in public",
    "break a bad habit",
)  # fmt: skip
_WHYS = (
    "does the sky look blue", "does ice float on water", "do leaves turn red in autumn",
    "does the Moon change shape", "does the sea taste salty", "does bread rise in the oven",
    "do onions make us cry", "do cats purr", "do birds fly south in winter",
    "does metal feel colder than wood", "does a mirror swap left and right",
    "does popcorn pop", "does soap remove grease", "does a rainbow have colors",
    "does thunder follow lightning", "does the Sun rise in the east", "do balloons float",
    "do dogs wag their tails", "do bees visit flowers", "does iron rust",
    "does fruit ripen faster in a bag", "do plants need light", "do stars twinkle",
    "does a boat float", "does snow look white", "do deserts get cold at night",
    "do our ears pop on a plane", "do people yawn", "does coffee keep us awake",
    "does milk turn sour", "does glass break so easily",
    "does a wet towel dry faster in the wind", "do magnets stick to a fridge",
    "do batteries run out", "do the days get longer in spring", "does an echo come back",
    "does hot air rise", "do fish need gills", "do spiders build webs", "do trees have rings",
    "does a bike stay up when it rolls", "does honey keep for years", "does chili taste hot",
    "does the tide come in", "do camels have humps", "do penguins not freeze",
    "does wood burn", "does sugar dissolve in tea", "does a kettle whistle",
    "do feathers keep birds warm",
)  # fmt: skip
_THINGS = (
    "a thermometer", "a compass", "a microwave", "a magnet", "a volcano", "a glacier",
    "a refrigerator", "a bicycle gear", "a lighthouse", "a zipper", "a telescope", "a candle",
    "a library", "a bank account", "a passport", "a vaccine", "an earthquake", "a rainbow",
    "a thermos flask", "a pulley", "a greenhouse", "a solar panel", "a barcode", "a battery",
    "a spring", "a sundial", "a lock", "a piano", "a submarine", "a parachute", "yeast",
    "gravity", "friction", "evaporation", "condensation", "photosynthesis", "inflation",
    "insurance", "recycling", "compost", "a budget", "a recipe", "a synonym", "a verb",
    "a proverb", "a triangle", "a fraction", "an average", "a prime number", "a percentage",
)  # fmt: skip
_WANTS = (
    "a quick breakfast", "a cheap dinner for two", "a gift for a friend", "a book for a child",
    "a first house plant", "a pet for a small flat", "a sport for a beginner",
    "a hobby for rainy days", "a snack for a long walk", "a drink for a hot day",
    "a game for a family evening", "a warm soup", "a dessert without sugar",
    "a lunch to take to work", "an instrument for a beginner", "a language to learn first",
    "a short trip at the weekend", "a color for a small room", "a job for the summer holidays",
    "an exercise for the back", "a way to relax after work", "a place for a picnic",
    "a fruit for a smoothie", "a spice for rice", "a fabric for a summer shirt",
    "a plant for a dark corner", "a tree for a small garden", "a side dish for fish",
    "a topping for a pizza", "a tool that every home needs", "a good first recipe",
    "a way to learn vocabulary", "a quiet board game", "a breakfast before a run",
    "a card for a birthday", "a song for a long drive", "a cheese for a sandwich",
    "a flower for the balcony", "a shoe for hiking", "a bag for school",
)  # fmt: skip
_SHOULDS = (
    "drink water before a meal", "keep a diary", "learn to type without looking",
    "take the stairs", "turn the lights off", "charge my phone every night",
    "eat breakfast every day", "write a shopping list", "stretch before a run",
    "take a nap after lunch", "wear a helmet on a bike", "read the news every day",
    "wash fruit before eating it", "keep bread in the fridge", "air a room in winter",
    "use sunscreen on a cloudy day", "buy a used phone", "learn a second language",
    "cook at home more often", "set two alarms", "plan my week on Sunday", "rinse rice",
    "keep plants in the bedroom", "lend money to a friend", "take notes by hand",
    "drink coffee in the evening", "walk to work", "buy in bulk", "change my password",
    "back up my photos", "eat slowly", "sleep with an open window", "save a little each month",
    "ask for a receipt", "warm up a car engine", "peel carrots", "salt pasta water",
    "let meat rest", "cut my own hair", "grow herbs on the windowsill",
)  # fmt: skip
_USES = (
    "baking soda", "vinegar", "lemon juice", "an old newspaper", "a rubber band", "a glass jar",
    "coffee grounds", "egg shells", "a wine cork", "a toothbrush", "aluminum foil", "salt",
    "rice", "a paper clip", "an old T-shirt", "candle wax", "a cardboard box", "chalk",
    "olive oil", "a tea bag", "banana peels", "a shoe box", "string", "tape", "a clothes peg",
    "ash", "bread that is stale", "a plastic bottle", "sand", "a sponge",
)  # fmt: skip
_HABITS = (
    "walk every day", "sleep eight hours", "read before bed", "drink enough water",
    "eat more vegetables", "keep a tidy desk", "cook with friends", "ride a bike",
    "play an instrument", "spend time outdoors", "write letters", "plan meals", "learn to swim",
    "laugh often", "take breaks at work", "listen to music", "share meals", "grow vegetables",
    "repair old things", "say thank you", "have a routine", "meet the neighbors",
    "visit museums", "turn off the phone", "save for later", "wash our hands", "recycle paper",
    "do puzzles", "sing", "sit up straight",
)  # fmt: skip
_PLACES = (
    "Rome", "Paris", "Cairo", "Tokyo", "Lisbon", "Oslo", "Venice", "Sydney", "Istanbul",
    "Delhi", "Iceland", "Kenya", "Peru", "Canada", "Greece", "Morocco", "Vietnam", "Scotland",
    "Brazil", "New Zealand", "the Alps", "the Sahara", "the Amazon", "Antarctica",
    "the Dead Sea", "the Nile", "Mount Fuji", "the Baltic Sea", "Hawaii", "Mexico",
)  # fmt: skip
_ANIMALS = (
    "an owl", "a dolphin", "an ant", "a bee", "an elephant", "a penguin", "a bat", "a camel",
    "an octopus", "a snail", "a frog", "a wolf", "a horse", "a parrot", "a turtle", "a shark",
    "a spider", "a hedgehog", "a fox", "a beaver", "a whale", "a crow", "a mouse", "a goat",
    "a butterfly", "a squirrel", "a swan", "an eagle", "a crab", "a giraffe",
)  # fmt: skip
_PROBLEMS = (
    "my phone battery dies too fast", "my bread is always dry", "my room is too hot at night",
    "my plant has yellow leaves", "my neighbor is loud", "I forget my keys", "my feet are cold",
    "I am always late", "my soup is too salty", "my desk is a mess", "I cannot wake up",
    "my shoes smell", "my back hurts from sitting", "my tea tastes bitter", "my bike squeaks",
    "my cake sinks in the middle", "my hands get dry in winter", "my glasses fog up",
    "I get bored on trains", "my window is foggy in the morning", "my rice sticks to the pot",
    "my cat scratches the sofa", "I spend too much on snacks", "my shirt has a grease stain",
    "my ears hurt on a plane", "I lose my socks", "my garden has snails",
    "my internet is slow", "my coffee gets cold", "my towel smells damp",
)  # fmt: skip
_MEANINGS = (
    "the early bird catches the worm", "practice makes perfect", "haste makes waste",
    "out of sight, out of mind", "actions speak louder than words", "better late than never",
    "two heads are better than one", "a stitch in time saves nine", "time is money",
    "don't judge a book by its cover", "when in Rome, do as the Romans do",
    "many hands make light work", "curiosity killed the cat", "no pain, no gain",
    "the grass is greener on the other side", "a watched pot never boils",
    "don't put all your eggs in one basket", "honesty is the best policy",
    "where there is smoke, there is fire", "slow and steady wins the race",
    "every cloud has a silver lining", "too many cooks spoil the broth",
    "you reap what you sow", "all that glitters is not gold", "look before you leap",
    "birds of a feather flock together", "a penny saved is a penny earned",
    "still waters run deep", "the pen is mightier than the sword", "old habits die hard",
)  # fmt: skip

_WHAT_IFS = (
    "leave milk in the sun", "eat too much salt", "sleep with wet hair",
    "put metal in a microwave", "skip breakfast", "never water a cactus",
    "mix red and blue paint", "boil water on a mountain", "leave iron in the rain",
    "put an egg into salt water", "plant a seed upside down", "charge a phone all night",
    "drink only juice", "forget the yeast in a dough", "wash wool in hot water",
    "put warm food into the fridge", "use too much detergent", "run right after lunch",
    "look at a screen all day", "shake a bottle of soda", "drop a feather and a stone",
    "leave a window open in winter", "freeze a full glass bottle", "stop drinking coffee",
    "wear shoes that are too small", "overwater a plant", "cut a magnet in half",
    "heat honey too much", "never brush my teeth", "put a plant in a dark room",
    "stir paint with a stick", "sit still for a whole day", "mix oil and water",
    "burn the toast", "pack a bag too full", "store apples next to bananas",
)  # fmt: skip
_COUNTS = (
    "days are in a leap year", "legs does a spider have", "hours are in a week",
    "continents are there", "planets circle the Sun", "colors has a rainbow",
    "strings does a violin have", "teeth does an adult have",
    "letters has the English alphabet", "minutes are in a day", "sides has a hexagon",
    "players are in a soccer team", "bones does a human have", "weeks are in a year",
    "wings does a bee have", "cards are in a deck", "keys does a piano have",
    "months have 31 days", "zeros are in a million", "grams are in a kilogram",
    "meters are in a kilometer", "oceans are there", "faces has a cube", "eggs are in a dozen",
    "arms does an octopus have", "years are in a century", "seasons does a year have",
    "wheels has a tricycle", "moons does the Earth have", "hearts does a person have",
    "degrees are in a right angle", "squares are on a chessboard", "inches are in a foot",
    "cups are in a liter", "senses do people have",
)  # fmt: skip

_Values = Sequence[str | tuple[str, ...]]


@dataclass(frozen=True)
class _Family:
    """Templates with one kind of value, for training or for testing only."""

    templates: tuple[str, ...]
    values: _Values
    held_out: bool = False


_FAMILIES: Mapping[str, _Family] = {
    "compare": _Family(
        ("Which is better for you, {0} or {1}?", "Should I choose {0} or {1}?",
         "How do {0} and {1} differ?", "What would you take, {0} or {1}?"), _PAIRS),
    "how to": _Family(
        ("How do I {0}?", "What is the best way to {0}?", "I want to {0}. Any tips?"), _TASKS),
    "why": _Family(("Why {0}?",), _WHYS),
    "explain": _Family(
        ("What is {0}?", "Explain {0} in simple words.", "What is {0} good for?"), _THINGS),
    "recommend": _Family(
        ("Can you recommend {0}?", "I am looking for {0}. Any ideas?",
         "What would you pick as {0}?"), _WANTS),
    "should": _Family(
        ("Should I {0}?", "Is it a good idea to {0}?", "Why would anyone {0}?"), _SHOULDS),
    "what if": _Family(
        ("What happens if I {0}?", "Is it bad if I {0}?"), _WHAT_IFS),
    "how many": _Family(("How many {0}?", "Quick question: how many {0}?"), _COUNTS),
    "keep": _Family(
        ("How long can I keep {0}?", "Where should I store {0}?",
         "What goes well with {0}?"), _FOODS),
    "animal": _Family(("What does {0} eat?", "Tell me something about {0}."), _ANIMALS),
    "uses": _Family(
        ("What can I do with {0} at home?", "Name a clever use for {0}."), _USES,
        held_out=True),
    "habit": _Family(
        ("Is it healthy to {0}?", "What do we gain when we {0}?"), _HABITS, held_out=True),
    "place": _Family(
        ("What is {0} known for?", "When is a good time to visit {0}?"), _PLACES,
        held_out=True),
    "problem": _Family(
        ("Help, {0}! What now?", "What can I change so that this stops: {0}?"), _PROBLEMS,
        held_out=True),
    "proverb": _Family(
        ('What do people mean by "{0}"?', 'When would somebody say "{0}"?'), _MEANINGS,
        held_out=True),
}  # fmt: skip
_TEST_SHARE = 0.3  # of the values of a family of training that are kept for testing

HELD_OUT_FAMILIES = tuple(name for name, family in _FAMILIES.items() if family.held_out)
"""Families whose templates stand in no training prompt."""


@dataclass(frozen=True)
class EverydayPrompt:
    """One question.

    Attributes:
        text: The question.
        family: Name of its templates' family, such as "compare".
        template: The template, with ``{0}`` for the value.
    """

    text: str
    family: str
    template: str


def everyday_prompts(
    train: int = 600, test: int = 300, seed: int = 0
) -> tuple[list[EverydayPrompt], list[EverydayPrompt]]:
    """Draw questions to build pairs from and questions to test on.

    No question lies in both lists, nor twice in one, whatever its case and the order of its
    words. No value of a family lies in both either, and `HELD_OUT_FAMILIES` are tested only.

    Args:
        train: How many to train on.
        test: How many to test on; half of them, rounded up, from `HELD_OUT_FAMILIES`.
        seed: Seed of the draw.

    Returns:
        Questions to train on, and questions to test on, each in random order.

    Raises:
        ValueError: If a number is negative, or there are not so many questions.

    Chapter: dpo/preference_data.
    """
    if train < 0 or test < 0:
        raise ValueError(f"train is {train} and test {test}: give numbers of 0 or more")
    generator = random.Random(f"prompts {seed}")
    pools: dict[str, list[EverydayPrompt]] = {"train": [], "new values": [], "new family": []}
    for name, family in _FAMILIES.items():
        values = list(family.values)
        generator.shuffle(values)
        kept = round(_TEST_SHARE * len(values))
        if family.held_out:
            pools["new family"] += _filled(name, family, values)
        else:
            pools["new values"] += _filled(name, family, values[:kept])
            pools["train"] += _filled(name, family, values[kept:])
    seen: set[str] = set()
    for pool, prompts in pools.items():
        generator.shuffle(prompts)
        pools[pool] = _unlike(prompts, seen)
    halves = test // 2, test - test // 2
    most = 2 * min(len(pools["new values"]), len(pools["new family"]))
    if train > len(pools["train"]) or test > most:
        raise ValueError(
            f"train is {train} and test {test}, and the templates give {len(pools['train'])} "
            f"and {most} questions at most: ask for fewer"
        )
    tested = pools["new values"][: halves[0]] + pools["new family"][: halves[1]]
    generator.shuffle(tested)
    return pools["train"][:train], tested


def _filled(name: str, family: _Family, values: _Values) -> list[EverydayPrompt]:
    found = []
    for template, value in product(family.templates, values):
        parts = (value,) if isinstance(value, str) else value
        found.append(EverydayPrompt(template.format(*parts), name, template))
    return found


def _unlike(prompts: Sequence[EverydayPrompt], seen: set[str]) -> list[EverydayPrompt]:
    """Leave out what says the same as an earlier question; remember the others."""
    found = []
    for prompt in prompts:
        key = same_words_key(in_words(prompt.text))
        if key not in seen:
            seen.add(key)
            found.append(prompt)
    return found
