"""The sentences of the stories, by their place in the plot.

Knows sentences with slots: {N} the hero's name, {h} its kind, {ah} with adjective and article, {p} the place, {F} {f}
the friend, {o} a thing, {c} {ac} its colour, {d} a day, {s} {S} {m} {w} he, He, him, his or she, She, her, her.
Knows no order.
"""

# ruff: noqa: SIM905 - word lists read better as text
from __future__ import annotations

PRONOUNS = ({"s": "he", "S": "He", "m": "him", "w": "his"}, {"s": "she", "S": "She", "m": "her", "w": "her"})
MALE_NAMES = tuple(
    """Adam Amir Anders Ben Boris Bruno Carlo Daniel David Emil Eric Felix Finn Frank Gus Hassan Henry Hugo Igor Ivan
    Jack John Jonas Kamal Karl Lars Leo Liam Lucas Marco Mark Milo Noah Oleg Omar Oscar Otto Paul Pedro Peter Rafael
    Sven Tariq Theo Tim Tom Victor Yusuf""".split()
)
FEMALE_NAMES = tuple(
    """Ada Aisha Alice Amy Anna Bella Carla Carmen Chloe Clara Cora Dora Ella Elsa Emma Eva Fatima Flora Freya Gina
    Greta Hana Helen Ida Ines Ingrid Iris Jane Julia Kate Kira Laura Lena Lily Lucy Luna Maja Maria Mary Maya Mina
    Nadia Nora Olive Petra Rosa Ruth Sofia Stella Tess Yara Zoe""".split()
)
ADJECTIVES = tuple("small brave shy old young curious clever lonely happy quiet tired lazy kind tall sleepy".split())
HEROES = tuple(
    """fox cat dog mouse rabbit bear owl duck frog robot dragon king queen girl boy baker sailor farmer painter pirate
    gardener teacher wizard turtle goat horse hedgehog penguin elephant lion""".split()
)
PLACES = (
    "a small village",
    "a green valley",
    "a house by the sea",
    "a dark forest",
    "a busy town",
    "a lighthouse",
    "a castle on a hill",
    "a garden full of flowers",
    "a cabin in the mountains",
    "a city of towers",
    "an old mill",
    "a harbour",
    "a quiet island",
    "a farm by the river",
)

OPENINGS = (
    "Once upon a time, there was {ah} named {N} who lived in {p}.",
    "In {p} there lived {ah} called {N}.",
    "Long ago, {ah} by the name of {N} lived in {p}.",
    "{N} was {ah}. {S} lived in {p}.",
    "There once was {ah} whose name was {N}. {S} lived in {p}.",
    "This is the story of {N}, {ah} from {p}.",
)
HABITS = (
    "Every morning {s} drank a cup of tea and looked at the sky.",
    "{S} liked to walk in the rain and to count the birds.",
    "Each evening {s} sang an old song to the moon.",
    "{S} had {ac} {o} that {s} loved more than anything else.",
    "Most of all {s} loved warm bread and good stories.",
    "{S} knew every path and every stone near {w} home.",
    "On quiet days {s} sat by the window and dreamed of far lands.",
)

# Each plot is a row of moments; one sentence of each moment is told.
PLOTS = (
    (  # something is lost
        ("One {d}, {N} could not find {w} {c} {o}.", "Then one {d} the {c} {o} of {N} was gone."),
        (
            "{S} looked under the bed, behind the door and on the roof, but it was not there.",
            "{S} searched the whole day until {w} feet hurt.",
        ),
        ("At last {s} asked {F}, {af} from next door.", "On the way {s} met {F}, {af} with bright eyes."),
        ('"Let us follow the footprints," said {F}.', '"I saw something shine by the well," said {F}.'),
        (
            "Together they found the {o} in the nest of a bird, which had thought it was a toy.",
            "And there, under the leaves of an old tree, sat a bird on the {o}.",
        ),
        ("{N} laughed and gave the bird a ribbon instead.", "{N} thanked {F} with all {w} heart."),
    ),
    (  # a storm
        (
            "One night a great storm came and the wind shook every wall.",
            "One {d} the sky turned black and thunder rolled.",
        ),
        ("A tree fell across the road, and nobody could get home.", "The rain washed away the little bridge."),
        ("{N} was afraid, but {s} heard somebody call for help.", "Through the noise {N} heard a small voice."),
        (
            "It was {F}, {af}, who sat on a rock in the cold water.",
            "{F}, {af}, was stuck in the mud and could not move.",
        ),
        ("{N} took a long rope and pulled with all {w} strength.", "{N} tied a rope to the {o} and threw it across."),
        ("Step by step {F} came out, wet but safe.", "In the end both of them stood on dry land and laughed."),
    ),
    (  # a contest
        ("One day a letter said that there would be a race on {d}.", "On {d} there was to be a big race."),
        ("Everybody told {N} that {s} was much too slow.", "{N} wanted to run, but {s} had never won anything."),
        ("So {N} practised each day before the sun was up.", "For weeks {s} trained on the hill behind the house."),
        ("When the race began, {F}, {af}, ran far ahead.", "At the start {F}, {af}, was the fastest of all."),
        (
            "But near the end {F} fell and hurt a foot, and {N} stopped to help.",
            "But at the last corner {F} slipped, and {N} turned back.",
        ),
        (
            "They crossed the line together, and the whole crowd cheered.",
            "They finished last, arm in arm, and got the loudest cheer.",
        ),
    ),
    (  # a map
        ("One {d}, {N} found a map inside an old {o}.", "Under a loose stone {N} found a map with {ac} cross."),
        ('"It must be a treasure," {s} whispered.', "{S} could not sleep that night."),
        (
            "The next day {s} packed some bread and asked {F}, {af}, to come along.",
            "With {w} friend {F}, {af}, {s} set out before dawn.",
        ),
        (
            "They climbed over hills and crossed three streams.",
            "They walked through tall grass until the stars came out.",
        ),
        (
            "Where the cross was, they dug and found a box full of seeds.",
            "At the cross stood a box, and in it there was only a letter: share your lunch with a friend.",
        ),
        ("They planted a tree there, and it still stands today.", "They looked at each other and began to laugh."),
    ),
    (  # something is broken
        ("One cold {d} the big clock of the town stood still.", "One {d} the old mill wheel stopped turning."),
        (
            "Nobody knew what time it was, and the bread burned in every oven.",
            "Without it there was no flour and no bread.",
        ),
        ("{N} went to look and climbed up all the stairs.", "{N} took a lamp and crept inside."),
        ("There {s} found {F}, {af}, asleep between the wheels.", "Inside sat {F}, {af}, who had lost the way home."),
        ('"I am sorry," said {F}, "I only wanted a warm place."', '"Please do not be angry," said {F}.'),
        (
            "{N} took {F} home and made a soft bed by the fire, and soon everything turned again.",
            "{N} offered {F} a bed at home, and the wheels began to move at once.",
        ),
    ),
    (  # a quarrel
        ("{N} had a good friend, {af} named {F}.", "The best friend of {N} was {F}, {af}."),
        (
            "One {d} they both wanted the same {c} {o}, and they shouted at each other.",
            "But on {d} they had a quarrel about {ac} {o}.",
        ),
        ("{F} went home without a word.", "For three days they did not speak."),
        ("{N} felt a stone in {w} heart.", "The days grew long and grey for {N}."),
        (
            "So {s} cut the biggest piece of cake and carried it to the door of {F}.",
            "At last {s} wrote a letter that said only: I miss you.",
        ),
        (
            '{F} opened the door and said, "I was just about to come to you."',
            "Before {s} could knock, {F} came out and hugged {m}.",
        ),
    ),
    (  # fear of singing
        (
            "{N} could sing better than anybody, but only when {s} was alone.",
            "{N} had a lovely voice, but {s} never sang for others.",
        ),
        ("On {d} there was a feast, and the singer fell ill.", "Then the town needed a singer for the feast on {d}."),
        ('"I cannot do it," said {N}, and {w} knees began to shake.', "{N} hid behind {ac} {o}."),
        (
            '{F}, {af}, sat down beside {m} and said, "Close your eyes and sing for me."',
            '"Just look at me and forget the rest," said {F}, {af}.',
        ),
        ("So {N} took a deep breath and began.", "{N} closed {w} eyes, and the first note came out soft as snow."),
        (
            "When the song was over, nobody moved, and then everybody clapped.",
            "People listened with open mouths, and some of them cried.",
        ),
    ),
    (  # a drought
        ("That summer it did not rain for a long time.", "One year the rain did not come."),
        ("The flowers hung their heads and the well was dry.", "The river became a thin line of mud."),
        (
            "{N} took {w} {c} {o} and went up the mountain to look for water.",
            "{N} decided to follow the dry river up to its spring.",
        ),
        ("High up {s} met {F}, {af}, who was just as thirsty.", "On the way {s} shared {w} last drops with {F}, {af}."),
        (
            "Together they rolled away a big stone that blocked the spring.",
            "{F} knew a hidden spring, and they dug a new path for it.",
        ),
        (
            "The water ran down into the valley, and everything turned green.",
            "That night they heard the river sing again.",
        ),
    ),
    (  # a letter
        ("One {d} a letter came to {N}, but it was not for {m}.", "One {d}, {N} found a letter on the road."),
        ("On the back it said: for {F}, behind the seven hills.", "It was meant for {F}, {af} who lived far away."),
        (
            '"Somebody must be waiting for this," thought {N}, and {s} put on {w} boots.',
            "{N} put it into {w} bag and left at once.",
        ),
        ("{S} walked for two days and slept under the stars.", "The way was long, and twice {s} got lost."),
        (
            "When {F} read the letter, tears became a smile.",
            "{F} opened it with shaking hands: it came from a brother who was coming home.",
        ),
        (
            '"Stay for supper," said {F}, and they talked all night.',
            "From then on they wrote to each other every week.",
        ),
    ),
)
CELEBRATIONS = (
    "That evening they made soup and ate it under the stars.",
    "Afterwards they danced until the lamps went out.",
    "Somebody played the guitar, and the children stayed up late.",
    "They baked a cake with cherries and shared it with everyone.",
)
ENDINGS = (
    "From that day on, {N} and {F} were the best of friends.",
    "And {N} the {h} was never lonely again.",
    "{N} went to bed with a smile, and the moon looked in through the window.",
    "And if you go there today, you may still hear {N} the {h} laugh.",
    "Since then {N} has known that nobody has to be alone with a trouble.",
    "That was the best day of the year, and {N} never forgot it.",
)
