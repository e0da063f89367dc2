"""Bundles: a model with all that its unlearning method keeps, in one folder that serves requests without the data.

``docs/bundles.md`` says what they hold and promise. ``bundle`` reads and writes the folder, ``pack`` makes one,
``forget`` serves a request (``serve`` is the part of it that runs in the isolated process), ``receipt`` says what was
done.
"""
