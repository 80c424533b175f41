"""What a first integrator does with the Langfuse Python SDK, 3.x and 5.x alike.

Host and keys come from LANGFUSE_*. Prints the trace's id.
"""

import os

from langfuse import Langfuse, propagate_attributes

langfuse = Langfuse()
assert langfuse.auth_check(), "auth_check with the right keys"

with langfuse.start_as_current_observation(name="handle", as_type="span", input={"q": "hi"}) as root:
    with propagate_attributes(
        user_id="ada", session_id="s-1", tags=["b", "a"], metadata={"tier": "gold"}, version="v1"
    ):
        with langfuse.start_as_current_observation(name="retrieve", as_type="retriever") as inner:
            inner.update(output=["doc"], metadata={"count": 1, "text": "123"})
            with langfuse.start_as_current_observation(
                name="llm",
                as_type="generation",
                model="gpt-4o",
                model_parameters={"temperature": 0.2},
                input=[{"role": "user", "content": "hi"}],
            ) as generation:
                generation.update(
                    output="hello",
                    usage_details={"input": 10, "output": 5},
                )
    root.update(output={"a": "hello"})
    trace_id = langfuse.get_current_trace_id()

langfuse.flush()

wrong = Langfuse(
    public_key=os.environ["LANGFUSE_PUBLIC_KEY"] + "-wrong",
    secret_key=os.environ["LANGFUSE_SECRET_KEY"],
    base_url=os.environ["LANGFUSE_BASE_URL"],
)
try:
    refused = not wrong.auth_check()
except Exception as error:  # 3.x raises what the server answered
    refused = "401" in str(error)
assert refused, "auth_check with a wrong key"
print(trace_id)
