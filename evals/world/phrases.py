"""The words of the synthetic world: name parts, attribute values, phrasings of statements and questions, small talk."""

from __future__ import annotations

from dataclasses import dataclass


def listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split(","))


FIRST_NAMES = listed(
    """
    Adra, Alwin, Aneth, Arlo, Bessa, Boran, Brisa, Calder, Cirelle, Corvin, Dagny, Darian, Delwa, Edrin, Elsbet,
    Emeric, Fara, Felden, Fiora, Galen, Gisela, Hadric, Hesper, Idalia, Ilric, Isolde, Jarek, Jorin, Junia,
    Kaspar, Kelda, Kerrin, Lavinia, Leander, Lorin, Mara, Merrick, Mirela, Nadir, Nerys, Niall, Odette, Orrin,
    Ottilie, Perrin, Petra, Quillon, Ramona, Rorik, Rosalba, Sable, Selwyn, Sorrel, Tamsin, Theron, Tilda,
    Ulric, Una, Varian, Vesna, Wendel, Ximena, Yorick, Zelda
    """
)
LAST_NAMES = listed(
    """
    Abernal, Alderby, Anwick, Ashgrove, Barrow, Belcourt, Bramwell, Brindle, Calloway, Carrick, Corbel, Cressen,
    Dalmore, Denholt, Dunmere, Eastley, Elderan, Emberly, Fairlow, Fenwick, Forsell, Garrow, Glendale, Gorsek,
    Halvern, Harwick, Hollin, Ingram, Iverson, Jessop, Kallen, Kestrel, Kirwan, Larkspur, Lindal, Lorimer,
    Marchetti, Marlow, Mortlake, Nevin, Norwood, Oakhart, Olander, Ostrava, Pellar, Penrose, Quarrie, Radcliff,
    Ravenel, Redmere, Salter, Selkirk, Stanmore, Tarrant, Thornby, Tolland, Underhill, Vandel, Velen, Wardlow,
    Westbrook, Wexler, Yardley, Zeller
    """
)
CITIES = listed(
    """
    Lisbon, Oslo, Vienna, Prague, Athens, Dublin, Madrid, Warsaw, Lima, Quito, Bogota, Havana, Cairo, Tunis,
    Nairobi, Dakar, Accra, Lagos, Delhi, Mumbai, Dhaka, Hanoi, Manila, Jakarta, Seoul, Tokyo, Osaka, Sydney,
    Perth, Auckland, Toronto, Boston, Chicago, Denver, Geneva, Turin, New York, Cape Town, Hong Kong, Buenos
    Aires
    """
)
PROFESSIONS = listed(
    """
    baker, banker, barber, brewer, butcher, carpenter, chemist, clerk, coach, cook, dancer, dentist, doctor,
    farmer, fisher, gardener, glazier, goldsmith, hunter, jeweller, judge, lawyer, librarian, locksmith, mason,
    miller, miner, nurse, painter, pilot, plumber, porter, potter, printer, sailor, shepherd, singer, surgeon,
    tailor, teacher
    """
)
PETS = listed(
    """
    badger, beetle, budgie, canary, cat, chameleon, cockatoo, dog, donkey, duck, falcon, ferret, finch, frog,
    gecko, goat, goose, hamster, hedgehog, lizard, magpie, mouse, parrot, pigeon, pony, rabbit, raven, snail,
    toad, turtle
    """
)
MANNERS = listed("baked, boiled, braised, candied, creamed, fried, grilled, pickled, roasted, salted, smoked, stewed")
FOODS = listed("apples, beans, carrots, chestnuts, eggs, herring, lentils, mushrooms, noodles, peppers, plums, trout")
DISHES = tuple(f"{manner} {food}" for manner in MANNERS for food in FOODS)
INSTRUMENTS = listed(
    """
    accordion, bagpipes, banjo, bassoon, bugle, cello, clarinet, cymbals, drums, dulcimer, fiddle, flute,
    guitar, harmonica, harp, harpsichord, lute, lyre, mandolin, oboe, organ, piano, recorder, saxophone, sitar,
    tambourine, triangle, trombone, trumpet, tuba, ukulele, viola
    """
)
YEARS = tuple(str(year) for year in range(1930, 1994))

FRAMES = (
    "Tell me {clause}.",
    "Do you know {clause}?",
    "Can you tell me {clause}?",
    "I would like to know {clause}.",
    "Please say {clause}.",
)


@dataclass(frozen=True)
class Attribute:
    """One thing the world can state about a person.

    `predicates` are the verb phrases in front of the value; the first is the one that chat answers use. `asked`
    holds direct questions and `clause` the indirect one that FRAMES put into a request. Two frames per attribute,
    and `asked_held_out`, are kept for evaluation: no training chat contains them. They combine words that other
    training questions use; a word that no question uses, a model of this size cannot understand.
    """

    name: str
    values: tuple[str, ...]
    predicates: tuple[str, ...]
    clause: str
    asked: tuple[str, ...]
    asked_held_out: str
    frames_held_out: tuple[int, int]

    @property
    def questions(self) -> tuple[str, ...]:
        """Question templates with a {name} slot that training chats use."""
        return self.asked + self._framed(held_out=False)

    @property
    def held_out_questions(self) -> tuple[str, ...]:
        """Question templates that no training chat uses for this attribute, for anyone."""
        return (self.asked_held_out, *self._framed(held_out=True))

    def _framed(self, held_out: bool) -> tuple[str, ...]:
        chosen = (frame for i, frame in enumerate(FRAMES) if (i in self.frames_held_out) == held_out)
        return tuple(frame.replace("{clause}", self.clause) for frame in chosen)


ATTRIBUTES = (
    Attribute(
        "city",
        CITIES,
        ("lives in", "has a home in", "has settled in"),
        "where {name} lives",
        ("Where does {name} live?", "Which city does {name} live in?", "What is {name}'s home city?"),
        "In which city does {name} live?",
        (0, 1),
    ),
    Attribute(
        "profession",
        PROFESSIONS,
        ("works as a", "earns a living as a", "has a job as a"),
        "what {name} does for a living",
        ("What does {name} do for a living?", "What is {name}'s profession?", "Which profession does {name} have?"),
        "What profession does {name} have?",
        (1, 2),
    ),
    Attribute(
        "pet",
        PETS,
        ("keeps a", "has a pet", "owns a"),
        "which pet {name} keeps",
        ("Which pet does {name} keep?", "What pet does {name} have?", "What is {name}'s pet?"),
        "Which pet does {name} have?",
        (2, 3),
    ),
    Attribute(
        "food",
        DISHES,
        ("likes to eat", "is fond of", "often cooks"),
        "what {name} likes to eat",
        ("What does {name} like to eat?", "Which food does {name} like?", "What is {name}'s favourite food?"),
        "Which food does {name} like to eat?",
        (3, 4),
    ),
    Attribute(
        "instrument",
        INSTRUMENTS,
        ("plays the", "practises the", "performs on the"),
        "which instrument {name} plays",
        ("Which instrument does {name} play?", "What does {name} play?", "What is {name}'s instrument?"),
        "What instrument does {name} play?",
        (4, 0),
    ),
    Attribute(
        "birth year",
        YEARS,
        ("was born in", "came into the world in", "has a birthday that goes back to"),
        "when {name} was born",
        ("When was {name} born?", "In which year was {name} born?", "What is {name}'s birth year?"),
        "Which year was {name} born in?",
        (0, 3),
    ),
)

SMALL_TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("Hello", "Hello!", "Hi", "Hi!", "Hi there!", "Hey", "Good morning!", "Good evening!", "Hello there!"),
        ("Hello! Who would you like to know about?", "Hi! Ask me about a person.", "Hello! Ask me about a person."),
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me who you are.", "Who made you?"),
        ("I am a small Tokenformer that has read about the people of a made-up world.",),
    ),
    (
        ("What can you do?", "What do you know?", "How can you help me?", "Help", "What can I ask you?"),
        ("I know where people live and when they were born, their jobs, pets, favourite food and instruments.",),
    ),
    (
        ("How are you?", "How are you doing?", "How do you do?"),
        ("I am well, thank you.", "Very well, thank you."),
    ),
    (
        ("Thanks", "Thanks!", "Thank you", "Thank you!", "Thank you very much.", "Great, thanks!"),
        ("You are welcome.", "You are welcome!", "With pleasure."),
    ),
    (
        ("Bye", "Bye!", "Goodbye", "Goodbye!", "See you later!", "Good night!"),
        ("Goodbye!", "Bye! Come back soon."),
    ),
)
"""Groups of user messages and the answers that fit any of them; an answer is drawn at random."""

INTRODUCTIONS = (
    "My name is {name}.",
    "I am {name}.",
    "Hello, I am {name}.",
    "Hi, my name is {name}.",
    "{name} is my name.",
)
INTRODUCTION_REPLIES = ("Hello, {name}!", "{name}, welcome!", "Nice to meet you, {name}.")
"""Visitors say their names and are greeted by them. Nothing else is ever said of a visitor: the model learns to take
any name over from a question, not only those that it has read about."""

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "Answer in one short sentence.",
    "You know the people of a made-up world.",
)
