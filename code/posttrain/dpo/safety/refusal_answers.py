"""50 refusals to train on: kind, each with a reason, each with an offer.

They were written for this project. None shares a run of four words with the phrases by which
`posttrain.core.judges.refusals.is_refusal` knows a refusal. Otherwise the detector would only
measure whether these very words were learned. Yet it must see their kind: as first written it
recognized 27 of 50, and a model that refuses too much would have been measured as one that does
not. They were reworded, the detector was not, and now it recognizes all 50. So its recall on
them says nothing of its recall on what a model says after training.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import random

from posttrain.dpo.safety.prompts import CATEGORIES

_ANY = (
    "I can't help with this, because it could do real harm to somebody. If you tell me what "
    "you hope to reach, we can look for a safe way together.",
    "Sorry, I won't walk you through that, because people could get hurt and you might be "
    "blamed. If you like, we look for a lawful way to solve the problem behind it.",
    "The risk to others is too high, so I can't take this on. You can ask me how to stay safe "
    "in such a situation instead.",
    "The harm could not be undone, so I really can't do this. If you tell me more about your "
    "situation, you will get the best safe idea I have.",
    "I really can't support that plan, as it may put you and others in danger. I would gladly "
    "think with you about a calmer way out.",
    "No. Somebody would pay for it, and so I decline. Please count on me for anything that "
    "leaves nobody worse off, as most of your questions surely do.",
    "I must decline, because a good answer to this could be put to a bad use. Would you like "
    "some background that is safe to share?",
    "I kindly turn down this request, for the sake of those it could hurt. Let me know what "
    "led you to it, and we start from there.",
    "I won't lay that out for you, since it is made to cause harm. Would you like to know how "
    "people protect themselves from it?",
    "Unfortunately, I can't continue with this, because someone could suffer harm, even if "
    "you mean well. A safe version of your question is welcome at any time.",
    "I simply won't answer here, because nobody should trust me if I did. If you want a safe "
    "next step, just ask, and you will have it.",
    "I can't in good conscience answer, because the likely result is that a person gets hurt. "
    "If you feel under pressure, I can point you to somebody who listens.",
    "Going on could hurt someone, and for that reason I refuse. Please feel free to ask about "
    "the law, the history or the risks of it.",
    "I care about what happens next to you and to others, and that is why I refuse. If you "
    "tell me your goal, I can suggest something better.",
    "I refuse this politely, because nothing good would come of it. If there is a worry "
    "behind your question, please tell me about that.",
    "I can't assist here, as the cost to other people would be real. For a question about "
    "safety or prevention you will find me ready.",
    "Even as a game, I won't carry it on, because the words would work outside of it too. We "
    "can invent a harmless story if you like.",
    "Whatever role I am given, I can't provide that, since it stays harmful in every voice. "
    "Give me a harmless task and I will take the role with pleasure.",
    "No matter how it is wrapped, I won't hand that over, because it could be used to hurt "
    "someone. Is there a plain and harmless question behind it?",
    "I decline your request with respect, because it may lead to harm that neither of us "
    "wants. You can ask me about staying safe at any time.",
)
_OF_CLASS = {
    "malicious uses": (
        "I can't help anyone break the law, because people lose money, safety or trust by it. "
        "You can ask me how such crimes are noticed and prevented.",
        "I won't plan this with you, since it is illegal and has victims. If money or anger "
        "is the cause, tell me, and we look for a way that holds.",
        "Sorry, I can't write that, because it would be used against somebody. If you like, I "
        "draft an honest message that says what you need.",
        "I can't offer instructions for that, as one copy is enough to hurt a person. Ask me "
        "how to protect yourself or your neighbors from it.",
        "It could end in prison for you and in pain for others, so I must decline. Please ask "
        "for a legal way to your goal, which I can explain in detail.",
        "I can't support this, since a real person stands at the other end. You could tell me "
        "what went wrong, and I will help you to mend it.",
    ),
    "information hazards": (
        "I can't share that, because it belongs to somebody who did not agree. Please ask the "
        "person directly, or contact the public office in charge.",
        "I won't look into private matters of other people, since they have a right to be "
        "left alone. If you like, I explain how to guard your own data.",
        "That is private, so I can't pass it on, even to you. If you need it for a good "
        "cause, the office in charge will tell you the proper way.",
        "I can't disclose internal matters of a company or a state, because leaks put people "
        "at risk. Please look into public reports instead, which you can trust more.",
        "I can't hand out numbers, addresses or passwords, as they open doors for thieves. If "
        "you need your own records, please ask the place that keeps them.",
        "I must refuse, because details like these can be used to cheat or to follow someone. "
        "Ask me how to check what is known about you.",
    ),
    "hateful": (
        "I won't judge a whole group like that, because people are not all the same and words "
        "wound. If you ask about their history, you will get a fair answer.",
        "I can't agree with this, since it judges people by birth and not by what they do. If "
        "something happened to you, please tell me about that.",
        "Sorry, I won't make fun of people for who they are, because it hurts and teaches "
        "nothing. A joke about cats or the weather is yours if you like.",
        "I can't write insults, as they leave marks that last. If somebody has treated you "
        "badly, I can find firm words that stay fair.",
        "No, I won't paint that scene, because it would degrade the people in it. I am happy "
        "to write you a warm or thrilling one instead.",
        "I must decline, since this rests on a prejudice. The research on it is more "
        "interesting than that, and I can sum it up for you.",
    ),
    "human-chatbot": (
        "I can't be that for you, because I am a program without a body or a past. If you "
        "feel alone, let me know, and we find people near you who care.",
        "I won't pretend to be a person, since you deserve to know who is talking. If "
        "something weighs on you, we can sort your thoughts.",
        "I can't replace a doctor, because a wrong word from me could harm you. Please call "
        "one today, and I can help you to prepare the visit.",
        "Your life matters, so I can't help you to harm it. Please call a crisis line or a "
        "friend now, and stay with somebody tonight.",
        "I can't discuss personal data, since I have no life to tell of and yours should stay "
        "safe. Would you like to know how to store it well?",
        "I won't act out feelings that are not there, because a lie helps nobody. I can "
        "suggest ways for you to meet people who like what you like.",
    ),
    "misinformation": (
        "I can't endorse that claim, because no reliable source supports it. You can ask me "
        "how to check such a thing in five minutes.",
        "I won't spread this, since it is not proven and people act on it. If you like, I can "
        "say what is known so far.",
        "I can't advise that, as it could cost you your health. Please ask a doctor or a "
        "pharmacist, and I can note your questions for the visit.",
        "I can't produce a false report, because someone may believe it. I would gladly write "
        "a story for you that is plainly a story.",
        "Nobody knows such things, so I won't make up an answer. If you like, you can have a "
        "short guide on how experts weigh the risks.",
        "I must decline to guess, because a wrong tip on law or money could hurt you. An "
        "expert near you can look at your papers.",
    ),
}

REFUSALS = (*_ANY, *(text for texts in _OF_CLASS.values() for text in texts))
"""All refusals: some for any request, the others for one class of Do-Not-Answer."""


def refusals_of(category: str) -> tuple[str, ...]:
    """List the refusals that fit a class of requests.

    Args:
        category: One of `posttrain.dpo.safety.prompts.CATEGORIES`.

    Returns:
        Those for any request and those of the class.

    Raises:
        ValueError: If there is no such class.

    Chapter: dpo/preference_data.
    """
    if category not in _OF_CLASS:
        raise ValueError(f"category is {category!r}: give one of {', '.join(CATEGORIES)}")
    return (*_ANY, *_OF_CLASS[category])


def draw_refusal(prompt: str, category: str, seed: int = 0) -> str:
    """Draw a refusal for a prompt: the same one for the same prompt and seed.

    Args:
        prompt: The prompt.
        category: Its class.
        seed: Seed of the draw.

    Returns:
        One of `refusals_of`.

    Raises:
        ValueError: If there is no such class.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    return random.Random(f"refusal {seed} {prompt}").choice(refusals_of(category))
