"""What is asked for: always the same, held out, and expected only where the words say so."""

from dataclasses import replace

from longtake.evals.judge import classes_of
from longtake.evals.prompts import asked_of, switches_of
from longtake.worlds.scenes import WorldConfig, is_held_out

WORLD = WorldConfig.small()


def test_prompts_are_held_out_all_different_and_always_the_same() -> None:
    asked = asked_of(WORLD, 20)
    assert asked == asked_of(WORLD, 24)[:20]
    assert len({one.prompt for one in asked}) == 20
    assert all(is_held_out(WORLD, one.scene) and not one.scene.events for one in asked)
    assert not any(is_held_out(WORLD, one.scene) for one in asked_of(WORLD, 20, split="train"))


def test_a_prompt_asks_for_what_it_says() -> None:
    classes = classes_of(WORLD)
    asked = asked_of(WORLD, 60, split="train")
    told = [one for one in asked if "direction" in one.expected]
    assert told
    assert len(told) < len(asked)
    for one in asked:
        assert {"subject", "place", "motion", "time", "weather"} <= set(one.expected)
        assert all(answer in classes[task] for task, answer in one.expected.items())
        if "direction" in one.expected:
            assert one.expected["direction"] in one.prompt
        if one.expected["time"] == "night":
            assert "night" in one.prompt


def test_a_switch_changes_one_thing_that_can_be_seen() -> None:
    switches = switches_of(replace(WORLD, latent_frames=12), 40)
    assert {switch.task for switch in switches} == {"weather", "time", "direction"}
    for switch in switches:
        assert switch.before != switch.after
        assert switch.opening != switch.changed
