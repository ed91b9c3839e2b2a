"""The controller's answers: given what is observed, what should exist, and what is true?

Stateless; all memory is `parent.status`. No loop, no watch and no queue belongs here: Metacontroller has them.
"""
