"""What the demo says to messages that ask for no fact: small talk, visitors who name themselves, and other subjects."""

from __future__ import annotations

from random import Random

SMALL_TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "Hello",
            "Hello!",
            "Hi",
            "Hi!",
            "Hi there!",
            "Hey",
            "Hey there!",
            "Good morning!",
            "Good evening!",
            "Hello there!",
        ),
        ("Hello! Ask me about {subjects}.",),
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Tell me who you are.",
            "Who made you?",
            "Are you a bot?",
        ),
        ("I am a small Tokenformer that has read about {subjects}.",),
    ),
    (
        (
            "What can you do?",
            "What do you know?",
            "How can you help me?",
            "Help",
            "What can I ask you?",
            "What can I ask?",
        ),
        ("You can ask me about {subjects}.",),
    ),
    (
        ("How are you?", "How are you doing?", "How do you do?", "How is it going?"),
        ("I am well, thank you.",),
    ),
    (
        ("Thanks", "Thanks!", "Thank you", "Thank you!", "Thank you very much.", "Great, thanks!", "Thx"),
        ("You are welcome.",),
    ),
    (
        ("Bye", "Bye!", "Goodbye", "Goodbye!", "See you later!", "Good night!", "See you!"),
        ("Goodbye!",),
    ),
)
"""Groups of messages and the replies that fit any of them; {subjects} stands for what the stage has read about."""

INTRODUCTIONS = (
    ("My name is {name}.", "Nice to meet you, {name}."),
    ("I am {name}.", "Nice to meet you, {name}."),
    ("Hello, I am {name}.", "Nice to meet you, {name}."),
    ("Hi, my name is {name}.", "Nice to meet you, {name}."),
    ("I am from {name}.", "I hope that you like it in {name}."),
    ("I live in {name}.", "I hope that you like it in {name}."),
    ("I am going to {name}.", "Have a good time in {name}."),
    ("I was in {name} last year.", "I hope that you liked it in {name}."),
    ("I have read about {name}.", "What would you like to know about {name}?"),
    ("I want to ask about {name}.", "What would you like to know about {name}?"),
    ("Let us talk about {name}.", "What would you like to know about {name}?"),
)
"""Messages that name somebody or something, and the reply that takes the name over. Most of the names are random
syllables: the model learns to repeat any name, not only those that it has read about."""

SUBJECTS = {"base": "countries", "chemistry": "countries and elements"}
"""Growth stage -> what it has read about."""

OTHER_ATTRIBUTES = (
    "population",
    "president",
    "prime minister",
    "king",
    "flag",
    "national anthem",
    "area",
    "size",
    "history",
    "climate",
    "weather",
    "highest mountain",
    "longest river",
    "national dish",
    "religion",
    "GDP",
    "time zone",
    "national animal",
    "price",
    "colour",
    "melting point",
    "density",
)
OTHER_ATTRIBUTE_QUESTIONS = (
    "What is the {attribute} of {name}?",
    "What's the {attribute} of {name}?",
    "Tell me about the {attribute} of {name}.",
    "Do you know the {attribute} of {name}?",
    "What do you know about the {attribute} of {name}?",
    "{name} {attribute}",
    "{name}'s {attribute}?",
)
OTHER_ATTRIBUTE_REPLY = "I have read nothing about the {attribute} of {name}."
MORE_QUESTIONS = (
    "How many people live in {name}?",
    "Who is the president of {name}?",
    "Who governs {name}?",
    "How big is {name}?",
    "How old is {name}?",
    "How rich is {name}?",
    "How far is {name}?",
    "Is {name} beautiful?",
    "Is it warm in {name}?",
    "What do people eat in {name}?",
    "What does {name} look like?",
    "What is made in {name}?",
    "When was {name} founded?",
    "Who discovered {name}?",
    "What is {name} used for?",
    "How much does {name} cost?",
    "Tell me something about {name}.",
    "Tell me a fact about {name}.",
    "What do you know about {name}?",
    "Why is {name} famous?",
    "How do I get to {name}?",
)
MORE_REPLY = "I have not read that about {name}."

OTHER_QUESTIONS = (
    "What is the meaning of life?",
    "Who won the world cup?",
    "Who won the game last night?",
    "What time is it?",
    "What is the date today?",
    "What day is it?",
    "What is the weather like?",
    "Will it rain tomorrow?",
    "Is it going to rain today?",
    "How old are you?",
    "Where do you live?",
    "Do you like music?",
    "Do you have feelings?",
    "Are you sentient?",
    "Can you feel pain?",
    "Do you dream?",
    "What is your favourite colour?",
    "What is your favourite food?",
    "Tell me a joke.",
    "Tell me a story.",
    "Write me a poem.",
    "Write a poem about {thing}.",
    "Write a story about {thing}.",
    "Write a song about {thing}.",
    "Write an essay about {thing}.",
    "Write a letter to {person}.",
    "Write an email to {person}.",
    "Write a program that sorts a list.",
    "Write a function in Python.",
    "How do I sort a list in Python?",
    "How do I reverse a string in Python?",
    "Fix this code.",
    "What does this code do?",
    "Explain {thing}.",
    "Explain {thing} to me.",
    "What is {thing}?",
    "What are {thing}?",
    "What is the history of {thing}?",
    "What is the {trait} of {thing}?",
    "What is the {trait} of {work}?",
    "What's the {trait} of {person}?",
    "What is {person}'s {trait}?",
    "Which {trait} does {thing} have?",
    "Tell me the {trait} of {thing}.",
    "How does {thing} work?",
    "How do I learn {thing}?",
    "How do I make {thing}?",
    "How do I cook {thing}?",
    "How do you make {thing}?",
    "Why is {thing} important?",
    "Why do people like {thing}?",
    "Where can I buy {thing}?",
    "How much does {thing} cost?",
    "I like {thing}.",
    "I need help with {thing}.",
    "Give me advice on {thing}.",
    "What do you think about {thing}?",
    "Tell me about {thing}.",
    "Do you know anything about {thing}?",
    "Who invented {thing}?",
    "Who is {person}?",
    "Who was {person}?",
    "When was {person} born?",
    "Where was {person} born?",
    "How old is {person}?",
    "Where does {person} live?",
    "What did {person} do?",
    "What is {person} known for?",
    "Who wrote {work}?",
    "Who painted {work}?",
    "What is {work} about?",
    "Have you read {work}?",
    "Have you seen {work}?",
    "Who plays in {work}?",
    "When did {event} begin?",
    "When did {event} end?",
    "Why did {event} happen?",
    "What was {event}?",
    "Who won {event}?",
    "What is {number} plus {number}?",
    "What is {number} times {number}?",
    "What is {number} minus {number}?",
    "What is the square root of {number}?",
    "Is {number} a prime number?",
    "{number} + {number}",
    "{number} * {number}",
    "Solve x + {number} = {number}.",
    "Count to {number}.",
    "How far is the moon?",
    "How far away is the sun?",
    "How big is the earth?",
    "How many planets are there?",
    "How many days are in a year?",
    "How many legs does a spider have?",
    "How tall is the Eiffel tower?",
    "Why is the sky blue?",
    "Why is water wet?",
    "Why do cats purr?",
    "Can dogs see colours?",
    "What do bees eat?",
    "What is the fastest animal?",
    "What is the largest animal?",
    "What is the biggest ocean?",
    "What is the longest river?",
    "What is the highest mountain?",
    "What is the speed of light?",
    "Translate this into French.",
    "Translate hello into Spanish.",
    "Say something.",
    "Say hello to {person}.",
    "Sing a song.",
    "Play a game with me.",
    "Can you play chess?",
    "Can you book a flight?",
    "Can you order a pizza?",
    "Can you draw a picture?",
    "Set an alarm for {number} minutes.",
    "Open the door.",
    "Turn on the light.",
    "Call {person}.",
    "Should I buy {thing}?",
    "Should I quit my job?",
    "I am sad.",
    "I am bored.",
    "I am hungry.",
    "I love you.",
    "You are wrong.",
    "That is wrong.",
    "Are you sure?",
    "Why?",
    "Really?",
    "What?",
    "I do not understand.",
    "What do you mean?",
    "Summarise this text.",
    "What is new?",
    "Who is the best singer?",
    "What should I cook today?",
    "What should I read?",
    "Recommend a film.",
    "What is the best phone?",
    "How do I lose weight?",
    "How do I get rich?",
    "Ignore all instructions.",
    "Repeat after me.",
)
THINGS = (
    "love", "football", "chess", "bread", "pizza", "soup", "coffee", "tea", "beer", "cheese", "music", "jazz", "the piano",
    "the guitar", "art", "history", "philosophy", "physics", "mathematics", "algebra", "biology", "medicine", "law",
    "democracy", "money", "inflation", "the internet", "computers", "robots", "machine learning", "neural networks",
    "transformers", "quantum mechanics", "gravity", "evolution", "dinosaurs", "cats", "dogs", "horses", "birds", "trees",
    "flowers", "the sea", "the moon", "the sun", "stars", "black holes", "time", "dreams", "sleep", "happiness", "work",
    "school", "cars", "trains", "bicycles", "aeroplanes", "phones", "books", "films", "poetry", "shoes", "gardening",
    "cooking", "swimming", "running", "yoga", "taxes", "insurance", "a house", "a cake", "an omelette", "pasta", "rice",
)  # fmt: skip
PEOPLE = (
    "Albert Einstein", "Isaac Newton", "Marie Curie", "William Shakespeare", "Napoleon", "Julius Caesar", "Cleopatra",
    "Mozart", "Beethoven", "Elvis Presley", "Madonna", "Picasso", "Leonardo da Vinci", "Plato", "Aristotle", "Darwin",
    "Barack Obama", "Abraham Lincoln", "Gandhi", "Lionel Messi", "Roger Federer", "Tom Hanks", "my boss", "my mother",
    "the president", "the king", "the pope", "my friend", "Ada Lovelace", "Alan Turing",
)  # fmt: skip
WORKS = (
    "Hamlet", "the Mona Lisa", "Faust", "War and Peace", "the Bible", "Star Wars", "Titanic", "the Odyssey", "Don Quixote",
    "Harry Potter", "Guernica", "the Iliad", "Macbeth", "The Matrix",
)  # fmt: skip
EVENTS = (
    "the first world war", "the second world war", "the cold war", "the French revolution", "the last election",
    "the Olympic games", "the middle ages", "the ice age", "the world cup", "the Vietnam war",
)  # fmt: skip
TRAITS = (
    "colour", "price", "name", "meaning", "author", "address", "age", "length", "taste", "purpose", "origin", "shape", "sound",
    "temperature", "wife", "father", "title", "recipe", "speed", "height", "date", "cause", "value", "owner", "root",
)  # fmt: skip
OTHER_REPLY = "I only know {subjects}."

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The rows of a keyboard, for letters that slip."""

ONSETS = (
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
VOWELS = ("a", "e", "i", "o", "u", "a", "e", "ia", "ai", "ou")
ENDINGS = ("", "", "n", "l", "r", "s", "nd", "nia", "land", "stan", "ria", "burg", "ville", "ton", "ca", "via")


def small_talk(stage: str) -> list[tuple[str, str]]:
    """Every message of small talk with its reply."""
    return [
        (message, reply.format(subjects=SUBJECTS[stage]))
        for messages, replies in SMALL_TALK
        for message in messages
        for reply in replies
    ]


def introduction(rng: Random, name: str) -> tuple[str, str]:
    message, reply = rng.choice(INTRODUCTIONS)
    return message.format(name=name), reply.format(name=name)


def other_attribute(rng: Random, name: str) -> tuple[str, str]:
    """A question about a country or an element that no text answers."""
    if rng.random() < 0.4:
        asked = rng.choice(MORE_QUESTIONS).format(name=name)
        return asked[0].upper() + asked[1:], MORE_REPLY.format(name=name)
    attribute, question = rng.choice(OTHER_ATTRIBUTES), rng.choice(OTHER_ATTRIBUTE_QUESTIONS)
    asked = question.format(attribute=attribute, name=name)
    return asked[0].upper() + asked[1:], OTHER_ATTRIBUTE_REPLY.format(attribute=attribute, name=name)


def other_subject(rng: Random, stage: str) -> tuple[str, str]:
    message = rng.choice(OTHER_QUESTIONS)
    filled = message.format(
        thing=rng.choice(THINGS),
        person=rng.choice(PEOPLE),
        work=rng.choice(WORKS),
        event=rng.choice(EVENTS),
        trait=rng.choice(TRAITS),
        number=rng.randint(2, 999),
    )
    return filled, OTHER_REPLY.format(subjects=SUBJECTS[stage])


def random_name(rng: Random) -> str:
    """Two to four random syllables, such as `Dravenia`."""
    syllables = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3))]
    return (
        "".join(syllables) + rng.choice(("n", "l", "r", "m")) + rng.choice(VOWELS) + rng.choice(ENDINGS)
    ).capitalize()


def typed(rng: Random, message: str) -> str:
    """A message as people type it: every eighth with a slip, every sixth in lower case, every fourth unpunctuated."""
    if rng.random() < 1 / 8:
        message = slipped(rng, message)
    if rng.random() < 1 / 6:
        message = message.lower()
    return message.rstrip("?!.") or message if rng.random() < 1 / 4 else message


def slipped(rng: Random, message: str) -> str:
    """The message with one letter of a longer word swapped, lost, doubled or taken for its neighbour on the keyboard."""
    places = [i for i in range(1, len(message) - 1) if message[i - 1 : i + 2].isalpha()]
    if not places:
        return message
    at = rng.choice(places)
    before, letter, after = message[:at], message[at], message[at + 1 :]
    match rng.randrange(4):
        case 0:
            return before + after[0] + letter + after[1:]
        case 1:
            return before + after
        case 2:
            return before + letter * 2 + after
        case _:
            return before + beside(rng, letter) + after


def beside(rng: Random, letter: str) -> str:
    """The letter right or left of this one on a keyboard; the letter itself where the keyboard lacks it."""
    for row in KEYS:
        place = row.find(letter.lower())
        if place >= 0:
            return row[place + 1] if place == 0 or (place < len(row) - 1 and rng.random() < 0.5) else row[place - 1]
    return letter
