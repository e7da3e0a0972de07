"""Replace what the runs of every engine do."""

from fireprop import engine


def replace_in_every_run(monkeypatch, name, wrap):
    """Let `wrap` make the method of this name from the one that is there, in both engines."""
    for kind in (engine.chain.Run, engine.graph.Run):
        monkeypatch.setattr(kind, name, wrap(getattr(kind, name)))
