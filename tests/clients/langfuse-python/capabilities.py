"""What people do with the Langfuse Python SDK 3, 4 and 5: it exports OTLP."""

import datetime
import os
import urllib.request
import uuid

import langfuse as package
from langfuse import Langfuse, propagate_attributes
from langfuse.media import LangfuseMedia

from steps import eventually, run, step

MAJOR = int(package.__version__.split(".")[0]) if hasattr(package, "__version__") else None
if MAJOR is None:
    from importlib.metadata import version

    MAJOR = int(version("langfuse").split(".")[0])

langfuse = Langfuse()
KEY = uuid.uuid4().hex[:8]
FROM = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
TO = FROM + datetime.timedelta(hours=2)
TRACE = {}
TYPES = ["agent", "tool", "chain", "retriever", "evaluator", "embedding", "guardrail", "generation"]


@step
def auth():
    assert langfuse.auth_check()
    wrong = Langfuse(public_key="pk-lf-wrong", secret_key="sk-lf-wrong", base_url=os.environ["LANGFUSE_BASE_URL"])
    try:
        refused = not wrong.auth_check()
    except Exception as error:
        refused = "401" in str(error)
    assert refused


@step
def traces():
    with langfuse.start_as_current_observation(name="request", as_type="span", input={"q": "hi"}) as root:
        TRACE["id"] = root.trace_id
        with propagate_attributes(
            user_id=f"ada-{KEY}", session_id=f"s-{KEY}", tags=["b", "a"], metadata={"tier": "gold"}, version="v1"
        ):
            for kind in TYPES:
                with langfuse.start_as_current_observation(name=kind, as_type=kind, input=kind) as child:
                    child.update(output={"done": kind}, metadata={"n": 1})
                    if kind == "generation":
                        child.update(
                            model="gpt-4o", model_parameters={"temperature": 0.2},
                            usage_details={"input": 10, "output": 5},
                        )
                        TRACE["generation"] = child.id
            langfuse.create_event(name="seen", level="WARNING")
        root.update(output={"a": "hello"})
    langfuse.flush()


def read_all():
    """The trace's observations, by name, as the SDK reads them."""
    if MAJOR >= 5:
        fields = "core,basic,io,usage,model,metadata,trace_context"
        found = langfuse.api.observations.get_many(trace_id=TRACE["id"], fields=fields, limit=50).data
    else:
        found = langfuse.api.trace.get(TRACE["id"]).observations
    found = {one.name: one for one in found}
    assert len(found) == len(TYPES) + 2, sorted(found)
    return found


@step
def reads():
    found = eventually(read_all)
    for kind in TYPES:
        assert str(found[kind].type).upper().endswith(kind.upper()), found[kind]
        assert found[kind].parent_observation_id == found["request"].id
    generation = found["generation"]
    usage = generation.usage_details
    assert usage == {"input": 10, "output": 5, "total": 15}, usage
    assert found["seen"].level.endswith("WARNING") if isinstance(found["seen"].level, str) else True
    if MAJOR >= 5:
        assert generation.model == "gpt-4o" and generation.total_cost > 0, generation
        assert generation.user_id == f"ada-{KEY}" and generation.session_id == f"s-{KEY}"
        assert sorted(generation.tags) == ["a", "b"]
        return
    trace = langfuse.api.trace.get(TRACE["id"])
    assert (trace.user_id, trace.session_id, trace.tags) == (f"ada-{KEY}", f"s-{KEY}", ["a", "b"])
    assert trace.input == {"q": "hi"} and trace.output == {"a": "hello"}
    assert generation.model == "gpt-4o" and trace.total_cost > 0
    assert [one.id for one in langfuse.api.trace.list(user_id=f"ada-{KEY}").data] == [TRACE["id"]]
    observations = langfuse.api.legacy.observations_v1 if MAJOR == 4 else langfuse.api.observations
    assert observations.get(TRACE["generation"]).name == "generation"
    assert len(observations.get_many(trace_id=TRACE["id"], type="TOOL").data) == 1


@step
def scores():
    langfuse.create_score(
        trace_id=TRACE["id"], name="quality", value=0.5, comment="fine", score_id=f"sc-{KEY}", data_type="NUMERIC"
    )
    langfuse.create_score(trace_id=TRACE["id"], observation_id=TRACE["generation"], name="tone", value="kind")
    langfuse.create_score(trace_id=TRACE["id"], name="ok", value=1, data_type="BOOLEAN")
    langfuse.create_score(session_id=f"s-{KEY}", name="whole", value=0.25)
    langfuse.flush()

    def read():
        if MAJOR >= 5:
            found = langfuse.api.scores.get_many(trace_id=TRACE["id"], fields="details,subject").data
        elif MAJOR == 4:
            found = langfuse.api.scores.get_many(trace_id=TRACE["id"]).data
        else:
            found = langfuse.api.score_v_2.get(trace_id=TRACE["id"]).data
        found = {one.name: one for one in found}
        assert sorted(found) == ["ok", "quality", "tone"], found
        return found

    found = eventually(read)
    assert found["quality"].value == 0.5
    if MAJOR >= 4:
        assert found["ok"].value in (True, 1) and found["quality"].comment == "fine"
    deletes = langfuse.api.score if MAJOR == 3 else langfuse.api.scores if MAJOR == 5 else langfuse.api.legacy.score_v1
    deletes.delete(f"sc-{KEY}")


@step
def sessions():
    if MAJOR >= 5:
        # It has no sessions: it asks for the observations of one.
        found = langfuse.api.observations.get_many(
            filter=f'[{{"type":"string","column":"sessionId","operator":"=","value":"s-{KEY}"}}]'
        ).data
        assert found
        return
    session = langfuse.api.sessions.get(f"s-{KEY}")
    assert [one.id for one in session.traces] == [TRACE["id"]]


@step
def metrics():
    query = {
        "view": "observations",
        "metrics": [{"measure": "totalCost", "aggregation": "sum"}, {"measure": "latency", "aggregation": "p95"}],
        "dimensions": [{"field": "providedModelName"}],
        "filters": [{"column": "sessionId", "operator": "=", "value": f"s-{KEY}", "type": "string"}],
        "fromTimestamp": FROM.isoformat(),
        "toTimestamp": TO.isoformat(),
    }
    import json

    api = langfuse.api.metrics_v_2 if MAJOR == 3 else langfuse.api.metrics
    rows = api.metrics(query=json.dumps(query)).data
    costs = {row["providedModelName"]: row["sum_totalCost"] for row in rows}
    assert float(costs["gpt-4o"]) > 0, rows


@step
def prompts():
    name = f"folder/greet {KEY}"
    langfuse.create_prompt(name=name, prompt="Hello {{who}}", labels=["production"], config={"t": 1}, tags=["x"])
    langfuse.create_prompt(name=name, prompt="Hi {{who}}", labels=["staging"])
    prompt = langfuse.get_prompt(name)
    assert (prompt.version, prompt.compile(who="Ada"), prompt.config) == (1, "Hello Ada", {"t": 1})
    assert langfuse.get_prompt(name, label="latest").version == 2
    langfuse.update_prompt(name=name, version=2, new_labels=["production"])
    assert langfuse.get_prompt(name, cache_ttl_seconds=0).version == 2
    chat = [{"role": "system", "content": "Be {{how}}"}, {"type": "placeholder", "name": "history"}]
    langfuse.create_prompt(name=f"chat-{KEY}", prompt=chat, type="chat", labels=["production"])
    compiled = langfuse.get_prompt(f"chat-{KEY}", type="chat").compile(
        how="kind", history=[{"role": "user", "content": "hi"}]
    )
    assert [one["content"] for one in compiled] == ["Be kind", "hi"], compiled
    assert langfuse.get_prompt(f"none-{KEY}", fallback="else").is_fallback
    with langfuse.start_as_current_observation(name="linked", as_type="generation", prompt=prompt) as generation:
        trace_id = generation.trace_id
    langfuse.flush()

    def read():
        if MAJOR >= 5:
            return langfuse.api.observations.get_many(trace_id=trace_id, fields="core,prompt").data[0]
        return langfuse.api.trace.get(trace_id).observations[0]

    linked = eventually(read)
    assert (linked.prompt_name, linked.prompt_version) == (name, 1) and linked.prompt_id


@step
def experiments():
    name = f"set {KEY}"
    langfuse.create_dataset(name=name, description="d", metadata={"m": 1})
    for number in range(3):
        langfuse.create_dataset_item(
            dataset_name=name, input={"n": number}, expected_output=number + 1, metadata={"level": "easy"}
        )
    dataset = langfuse.get_dataset(name)
    assert len(dataset.items) == 3

    def task(*, item, **_):
        return item.input["n"] + 1

    def evaluator(*, output, expected_output, **_):
        return package.Evaluation(name="exact", value=1.0 if output == expected_output else 0.0)

    def mean(*, item_results, **_):
        return package.Evaluation(name="mean", value=1.0)

    result = dataset.run_experiment(
        name="trial", run_name=f"run {KEY}", task=task, evaluators=[evaluator], run_evaluators=[mean]
    )
    assert len(result.item_results) == 3, result
    langfuse.flush()
    if MAJOR <= 4:
        run_of = langfuse.get_dataset_run(dataset_name=name, run_name=f"run {KEY}")
        assert len(run_of.dataset_run_items) == 3, run_of
    if MAJOR >= 4:

        def read():
            items = langfuse.api.experiments.list_items(
                from_start_time=FROM, experiment_name=f"run {KEY}", fields="core,dataset,io,itemMetadata,scores"
            ).data
            assert len(items) == 3, items
            assert all(item.scores and item.experiment_dataset_id == dataset.id for item in items), items
            return items

        items = eventually(read)
        assert sorted(item.output for item in items) == [1, 2, 3], items
        found = langfuse.api.experiments.list(from_start_time=FROM, name=f"run {KEY}", fields="core,scores").data
        assert found[0].item_count == 3 and found[0].dataset_id == dataset.id, found
        assert [one.name for one in found[0].scores] == ["mean"], found


@step
def media():
    content = b"\x89PNG" + KEY.encode()
    picture = LangfuseMedia(content_bytes=content, content_type="image/png")
    with langfuse.start_as_current_observation(name="picture", as_type="span", input={"picture": picture}) as span:
        trace_id = span.trace_id
    langfuse.flush()

    def read():
        if MAJOR >= 5:
            import json

            rows = langfuse.api.observations.get_many(trace_id=trace_id, fields="core,io").data
            return json.loads(rows[0].input)
        return langfuse.api.trace.get(trace_id).observations[0].input

    reference = eventually(read)["picture"]
    assert reference.startswith("@@@langfuseMedia:type=image/png|id="), reference
    parsed = LangfuseMedia.parse_reference_string(reference)
    found = eventually(lambda: langfuse.api.media.get(parsed["media_id"]))
    assert urllib.request.urlopen(found.url).read() == content


@step
def deletes():
    langfuse.api.trace.delete(TRACE["id"])
    if MAJOR >= 5:
        assert langfuse.api.observations.get_many(trace_id=TRACE["id"]).data == []
        return
    try:
        langfuse.api.trace.get(TRACE["id"])
        raise AssertionError("it is still there")
    except Exception as error:
        assert "not found" in str(error) or "404" in str(error), error


run()
