"""Ids of new runs: readable, easy to distinguish, and practically unique."""

from __future__ import annotations

import secrets

LONGEST_TASK = 200
"""Characters of a task's name, so that an id made of it is one."""
_ADJECTIVES = """
amber ample arctic autumn bold brave brief bright brisk bronze calm candid chief civic clear clever coral
cosmic crisp daring deep deft dusty eager early earnest fair famous fleet fond frank free fresh gentle
glad golden grand green happy hardy honest humble ideal ivory jolly keen kind lively loyal lucid lunar
mellow merry misty modest noble novel olive patient plain polar prime proud quick quiet rapid ready royal
ruby rustic sage scarlet serene sharp silent silver simple sincere smart snowy solar solid spry stable
steady still strong subtle sunny sure swift tall tidy tranquil true upbeat vast verdant vivid warm wise
witty young zesty
"""
_ANIMALS = """
ant badger bat bear beaver bee bison boar bobcat buffalo camel caribou cat cheetah cobra condor cougar
crab crane cricket crow deer dingo dog dolphin dove duck eagle eel egret elk falcon ferret finch fox frog
gecko gibbon goat goose gopher grouse gull hare hawk hedgehog heron hippo horse hound hyena ibex ibis
iguana jaguar jay kestrel kiwi koala lark lemur leopard lion lizard llama lobster lynx magpie mallard
marmot marten mole moose moth mouse newt ocelot octopus orca oriole osprey otter owl oyster panda panther
parrot pelican penguin pika plover pony puffin puma quail rabbit raccoon raven robin salmon seal shark
shrew skylark sloth snail sparrow spider squid stork swan tapir tern tiger toad trout turtle viper walrus
weasel whale wolf wombat wren yak zebra
"""


def new_run_id(task: str) -> str:
    """Return the id of a new run of a task, such as `resnet18-cifar10/brisk-otter-3f9c2a`.

    Among ten thousand runs of one task, two have the same name once in four thousand times; the daemon then
    refuses the second. Names come from the operating system's random numbers, so they neither depend on what
    seeds a training script sets, nor change what it draws.
    """
    words = secrets.choice(_ADJECTIVES.split()), secrets.choice(_ANIMALS.split()), secrets.token_hex(3)
    return f"{task}/{'-'.join(words)}"
