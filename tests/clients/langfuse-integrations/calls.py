"""Langfuse's integrations as people use them: the OpenAI wrapper, LangChain's callback, LiteLLM's old and new one.

The first argument says which; the second is the URL of a model server. Prints the trace's id.
"""

import os
import sys

which, url = sys.argv[1:]
os.environ["OPENAI_API_KEY"] = "sk-none"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched from elsewhere
MESSAGES = [{"role": "user", "content": "Capital of France?"}]

from langfuse import Langfuse, propagate_attributes

langfuse = Langfuse()


def openai_wrapper():
    from langfuse.openai import OpenAI

    client = OpenAI(base_url=url)
    answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, temperature=0.5, name="ask")
    assert answer.choices[0].message.content == "Paris."


def langchain():
    from langchain_openai import ChatOpenAI
    from langfuse.langchain import CallbackHandler

    model = ChatOpenAI(model="gpt-4o", base_url=url, temperature=0.5)
    answer = model.invoke("Capital of France?", config={"callbacks": [CallbackHandler()], "run_name": "ask"})
    assert answer.content == "Paris."


def litellm_callback(name):
    """The trace that it made: its callbacks run in threads of their own."""
    import time

    import litellm

    litellm.callbacks = [name]
    answer = litellm.completion(
        model="openai/gpt-4o", api_base=url, messages=MESSAGES, temperature=0.5,
        metadata={"generation_name": "ask", "trace_name": "handle", "trace_user_id": "ada"},
    )
    assert answer.choices[0].message.content == "Paris."
    for _ in range(100):
        for trace in langfuse.api.trace.list(user_id="ada").data:
            if any(one.type == "GENERATION" for one in langfuse.api.trace.get(trace.id).observations):
                return trace.id
        time.sleep(0.1)
    raise SystemExit(f"{name} sent nothing")


if which.startswith("langfuse"):
    trace_id = litellm_callback(which)
else:
    with langfuse.start_as_current_observation(name="handle", as_type="span") as root:
        with propagate_attributes(user_id="ada"):
            {"openai": openai_wrapper, "langchain": langchain}[which]()
        trace_id = root.trace_id
langfuse.flush()
print(trace_id)
