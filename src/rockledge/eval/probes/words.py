"""Words that the families share: names of people and of things, common enough for any vocabulary."""

NAMES = ("Anna", "Ben", "Carl", "David", "Emma", "Frank", "Grace", "Henry", "Jack", "Kate", "Lucy", "Mary")
FRUITS = ("apple", "banana", "cherry", "grape", "lemon", "melon", "orange", "peach", "pear", "plum")
ANIMALS = ("bird", "cat", "cow", "dog", "duck", "fish", "goat", "horse", "lion", "mouse", "pig", "sheep")
COLOURS = ("black", "blue", "brown", "green", "orange", "pink", "red", "white", "yellow")
