"""The steps that package a version, serve it, and ask it one question as a client would."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from components.errors import TunewrightError
from flows.job import Job
from flows.observer import Observer
from flows.step_store import Step, source_digest

__all__ = ["asked_key", "bundle", "try_question"]


def bundle(job: Job, registered: dict[str, Any], observer: Observer) -> dict[str, Any]:
    """Package the version with BentoML, from files that the registry has verified."""
    from deploy.bundle import build_bundle
    from deploy.from_registry import version_files
    from deploy.staging import stage_model
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        files = version_files(registry, registered["digest"])
    built = build_bundle(stage_model(files, out_home=job.home), out_home=job.home)
    observer.say(f"  {built.tag}: {'already there' if built.reused else f'built in {built.seconds:.0f} s'}")
    return {"tag": built.tag, "path": str(built.path), "bytes": built.bytes}


def asked_key(job: Job, registered: dict[str, Any]) -> str | None:
    """Return the id of the key without whose signature the version isn't served, or None where there is none.

    Its registry is asked, not the recipe: what a promotion asked for stays asked where the recipe asks no longer.
    """
    from registry.signatures import required_keys
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        return next(iter(required_keys(registry, registry.resolve(registered["digest"]))), None)


def try_question(job: Job, registered: dict[str, Any], bundled: dict[str, Any], observer: Observer) -> Step:
    """Serve the bundle, wait for its canary, ask one held-out question as a client would, and stop it."""

    def make(_: str) -> dict[str, Any]:
        from deploy.serving import serve_bundle

        row = job.test_rows[0]
        started = time.monotonic()
        with serve_bundle(Path(bundled["path"])) as server:
            observer.say(f"  ready at {server.url} after {server.start_seconds:.0f} s")
            found = _ask(server.base_url, job.recipe.name, row.prompt, job.recipe.task.max_new_tokens)
            canary = dict(server.ready)
        if found["model_digest"] != registered["digest"]:
            raise TunewrightError(
                f"the endpoint answers for {found['model_digest']}, not for {registered['digest']}",
                next_step="run again; if it stays, remove the bundle's folder",
            )
        return {
            "url": server.url,
            "question": row.prompt[-1].content,
            "gold": row.answer,
            **found,
            "start_seconds": server.start_seconds,
            "seconds": time.monotonic() - started,
            "canary": canary,
        }

    reads = {
        "digest": registered["digest"],
        "bundle": bundled["tag"],
        "row": [(m.role, m.content) for m in job.test_rows[0].messages],
        "max_new_tokens": job.recipe.task.max_new_tokens,
        "code": source_digest(("deploy", "components/evaluation", "components/models", "components/data")),
    }
    return job.store.run("endpoint", reads, make)


def _ask(base_url: str, model: str, prompt: Any, max_tokens: int) -> dict[str, Any]:
    import httpx
    from openai import OpenAI

    # a proxy of the environment has no business between this process and loopback
    direct = httpx.Client(trust_env=False, timeout=120)
    client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, http_client=direct)
    turns: list[Any] = [{"role": message.role, "content": message.content} for message in prompt]
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=turns,
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces: list[str] = []
    usage: dict[str, int] | None = None
    for chunk in raw.parse():
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        if chunk.usage is not None:
            usage = {
                "prompt_tokens": chunk.usage.prompt_tokens,
                "completion_tokens": chunk.usage.completion_tokens,
            }
    client.close()
    return {
        "answer": "".join(pieces),
        "streamed_chunks": len(pieces),
        "usage": usage,
        "model_digest": raw.headers.get("x-model-digest"),
    }
