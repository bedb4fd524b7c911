"""What the clients ask for. A model this small does not call a function of its own accord, so the requests
say that one has to be called; all values are bounded, so every answer ends by itself."""

from typing import Any, Literal

import pydantic

City = Literal["Oslo", "Rome", "Lima"]
QUESTION = "What is the weather in Rome?"
REPORT = "It is sunny and 31 degrees in Rome."


class Weather(pydantic.BaseModel):
    """How the weather is."""

    model_config = pydantic.ConfigDict(extra="forbid")

    city: City
    sunny: bool
    degrees: int = pydantic.Field(ge=-50, le=50)


class Place(pydantic.BaseModel):
    """Where the weather is asked for."""

    model_config = pydantic.ConfigDict(extra="forbid")

    city: City


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": Place.model_json_schema(),
    },
}


def get_weather(city: City) -> str:
    """The weather in a city."""
    return f"{REPORT} ({city})"
