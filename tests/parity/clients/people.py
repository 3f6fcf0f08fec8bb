"""The schema that the clients ask for: a pydantic model as most are written."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

QUESTION = "What is the capital of Peru?"


class Home(BaseModel):
    city: Literal["Lima", "Oslo"]


class Person(BaseModel):
    """The facts about a person."""

    name: str = Field(description="First and last name.")
    age: int
    home: Home
    alive: bool = True
