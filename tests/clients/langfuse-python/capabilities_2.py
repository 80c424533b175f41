"""What people do with the Langfuse Python SDK 2: it sends batches of events to /ingestion."""

import uuid

from langfuse import Langfuse
from langfuse.media import LangfuseMedia

from steps import eventually, run, step

langfuse = Langfuse()
KEY = uuid.uuid4().hex[:8]
TRACE = f"own-trace-{KEY}"


@step
def auth():
    assert langfuse.auth_check()
    wrong = Langfuse(secret_key="sk-lf-wrong")
    try:
        refused = not wrong.auth_check()
    except Exception as error:
        refused = "401" in str(error) or "nvalid" in str(error)
    assert refused


@step
def traces():
    trace = langfuse.trace(
        id=TRACE, name="request", user_id=f"ada-{KEY}", session_id=f"s-{KEY}", tags=["b", "a"],
        metadata={"tier": "gold", "n": {"x": 1}}, input={"q": "hi"}, release="r1", version="v1", public=True,
    )
    span = trace.span(name="work", input={"a": 1})
    generation = span.generation(
        name="llm", model="gpt-4o", model_parameters={"temperature": 0.2},
        input=[{"role": "user", "content": "hi"}], usage={"input": 10, "output": 5, "unit": "TOKENS"},
    )
    generation.end(output="hello")
    span.event(name="seen", level="WARNING")
    span.end(output={"b": 2})
    trace.update(output={"a": "hello"})
    # After its end.
    generation.update(metadata={"late": True})
    langfuse.flush()


@step
def reads():
    trace = eventually(lambda: langfuse.fetch_trace(TRACE).data)
    assert (trace.name, trace.output, trace.tags) == ("request", {"a": "hello"}, ["a", "b"]), trace
    assert trace.metadata == {"tier": "gold", "n": {"x": 1}} and trace.public
    by_name = {one.name: one for one in trace.observations}
    assert by_name["llm"].parent_observation_id == by_name["work"].id
    assert by_name["llm"].usage_details == {"input": 10, "output": 5, "total": 15}, by_name["llm"]
    assert by_name["llm"].calculated_total_cost > 0 and by_name["llm"].metadata == {"late": True}
    assert by_name["seen"].level == "WARNING"
    found = langfuse.fetch_traces(user_id=f"ada-{KEY}", tags=["a", "b"]).data
    assert [one.id for one in found] == [TRACE]
    assert len(langfuse.fetch_observations(trace_id=TRACE, type="GENERATION").data) == 1
    assert langfuse.fetch_observation(by_name["llm"].id).data.model == "gpt-4o"
    daily = langfuse.client.metrics.daily(user_id=f"ada-{KEY}").data
    assert daily[0].count_traces == 1 and daily[0].usage, daily


@step
def scores():
    langfuse.score(id=f"sc-{KEY}", trace_id=TRACE, name="quality", value=0.5, comment="fine")
    langfuse.trace(id=TRACE).score(name="tone", value="kind")
    langfuse.score(trace_id=TRACE, name="ok", value=1, data_type="BOOLEAN")
    langfuse.flush()

    def read():
        found = langfuse.client.score.get(user_id=f"ada-{KEY}").data
        assert sorted(one.name for one in found) == ["ok", "quality", "tone"], found
        return {one.name: one for one in found}

    found = eventually(read)
    assert found["quality"].value == 0.5 and found["tone"].string_value == "kind"
    assert langfuse.client.score.get_by_id(f"sc-{KEY}").comment == "fine"
    langfuse.client.score.delete(f"sc-{KEY}")


@step
def sessions():
    found = [one for one in langfuse.fetch_sessions().data if one.id == f"s-{KEY}"]
    assert len(found) == 1
    assert [one.id for one in langfuse.client.sessions.get(f"s-{KEY}").traces] == [TRACE]


@step
def prompts():
    name = f"greet {KEY}"  # it leaves slashes as they are, which no server of its time took
    langfuse.create_prompt(name=name, prompt="Hello {{who}}", labels=["production"], config={"t": 1}, tags=["x"])
    langfuse.create_prompt(name=name, prompt="Hi {{who}}", labels=["staging"])
    prompt = langfuse.get_prompt(name)
    assert (prompt.version, prompt.compile(who="Ada"), prompt.config) == (1, "Hello Ada", {"t": 1})
    assert langfuse.get_prompt(name, label="latest").version == 2
    langfuse.update_prompt(name=name, version=2, new_labels=["production"])
    assert langfuse.get_prompt(name, cache_ttl_seconds=0).version == 2
    chat = [{"role": "system", "content": "Be {{how}}"}]
    langfuse.create_prompt(name=f"chat-{KEY}", prompt=chat, type="chat", labels=["production"])
    assert langfuse.get_prompt(f"chat-{KEY}", type="chat").compile(how="kind")[0]["content"] == "Be kind"
    fallback = langfuse.get_prompt(f"none-{KEY}", fallback="else")
    assert fallback.is_fallback
    trace = langfuse.trace(id=f"p-{KEY}")
    trace.generation(id=f"pg-{KEY}", name="linked", prompt=prompt)
    langfuse.flush()
    linked = eventually(lambda: langfuse.fetch_observation(f"pg-{KEY}").data)
    assert (linked.prompt_name, linked.prompt_version) == (name, 1) and linked.prompt_id


@step
def experiments():
    name = f"set {KEY}"
    langfuse.create_dataset(name=name, description="d", metadata={"m": 1})
    for number in range(2):
        langfuse.create_dataset_item(dataset_name=name, input={"n": number}, expected_output=number)
    dataset = langfuse.get_dataset(name)
    assert len(dataset.items) == 2
    for item in dataset.items:
        with item.observe(run_name="run 1") as trace_id:
            langfuse.score(trace_id=trace_id, name="exact", value=1)
    langfuse.flush()
    found = langfuse.get_dataset_run(name, "run 1")
    assert len(found.dataset_run_items) == 2, found
    assert len(langfuse.get_dataset_runs(name).data) == 1


@step
def media():
    content = b"\x89PNG" + KEY.encode()
    picture = LangfuseMedia(content_bytes=content, content_type="image/png")
    langfuse.trace(id=f"m-{KEY}", input={"picture": picture})
    langfuse.flush()
    trace = eventually(lambda: langfuse.fetch_trace(f"m-{KEY}").data)
    reference = trace.input["picture"]
    assert reference.startswith("@@@langfuseMedia:type=image/png|id="), reference
    parsed = LangfuseMedia.parse_reference_string(reference)
    found = eventually(lambda: langfuse.fetch_media(parsed["media_id"]).data)
    import urllib.request

    assert urllib.request.urlopen(found.url).read() == content


@step
def deletes():
    langfuse.client.trace.delete(TRACE)
    try:
        langfuse.fetch_trace(TRACE)
        raise AssertionError("it is still there")
    except Exception as error:
        assert "404" in str(error) or "not found" in str(error), error


run()
