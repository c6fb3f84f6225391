"""One step of a policy as an ONNX graph, written by hand from its arrays: no tracing, no JAX.

Computes in float64, as `ipd.policy.act.Controller` does; arrays are kept as float32 and widened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

OPSET = 17
IR = 8
"""Of the files that opset 17 came with; runtimes refuse files newer than themselves."""

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


def model(
    arrays: dict[str, NDArray[np.float32]], network: dict[str, Any], blank: dict[str, NDArray[Any]]
) -> bytes:
    """The serialised model of a network of known kind, "mlp" or "sequence".

    Inputs: `observation` (obs,) in logged units, float32, and each array of `blank`.

    Outputs: `action` (act,) in logged units, float32, and `next_NAME` for each array of the memory.
    """
    graph = _Graph(arrays)
    normal = graph(
        "Div",
        graph("Sub", graph.wide("observation"), graph.array("observation_mean")),
        graph.array("observation_std"),
    )
    if network["kind"] == "sequence":
        scaled, after = _sequence(graph, network, blank, normal)
    else:
        scaled, after = graph("Tanh", _mlp(graph, "policy", normal)), {}
    raw = graph("Add", graph("Mul", scaled, graph.array("action_half")), graph.array("action_centre"))
    inside = graph("Min", graph("Max", raw, graph.array("action_low")), graph.array("action_high"))
    action = graph("Cast", inside, to=TensorProto.FLOAT)
    results = {"action": action} | {f"next_{name}": after[name] for name in blank}
    for name, value in results.items():
        graph.nodes.append(helper.make_node("Identity", [value], [name]))

    def described(name: str, like: NDArray[Any]) -> Any:
        return helper.make_tensor_value_info(name, _TYPES[like.dtype.name], like.shape)

    inputs = [described("observation", arrays["observation_mean"])]
    outputs = [described("action", arrays["action_low"])]
    for name, like in blank.items():
        inputs.append(described(name, like))
        outputs.append(described(f"next_{name}", like))
    made: ModelProto = helper.make_model(
        helper.make_graph(graph.nodes, "policy", inputs, outputs, list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="ipd",
    )
    checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


class _Graph:
    """Nodes in order, and the constants that they read. Calling it adds a node, whose output it names."""

    def __init__(self, arrays: dict[str, NDArray[np.float32]]):
        self.arrays = arrays
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.widened: dict[str, str] = {}

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def array(self, name: str) -> str:
        """One of the policy's arrays, widened."""
        return self.wide(self.constant(self.arrays[name], name))

    def wide(self, x: str) -> str:
        """As float64; asked again, the same."""
        if x not in self.widened:
            self.widened[x] = self("Cast", x, to=TensorProto.DOUBLE)
        return self.widened[x]

    def constant(self, value: Any, name: str | None = None) -> str:
        """An array; whole numbers without a type are int64, as ONNX wants its shapes and axes."""
        array = np.asarray(value)
        name = name or f"{array.dtype}{list(array.shape)}_{array.ravel().tolist()}"
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def linear(self, name: str, x: str) -> str:
        """(..., inputs) -> (..., outputs)."""
        return self("Add", self("MatMul", x, self.array(f"{name}/weight")), self.array(f"{name}/bias"))

    def norm(self, name: str, x: str, epsilon: float) -> str:
        """LayerNorm of the last axis; the operator of that name may take means in float32."""
        centred = self("Sub", x, self("ReduceMean", x, axes=[-1]))
        variance = self("ReduceMean", self("Mul", centred, centred), axes=[-1])
        deviation = self("Sqrt", self("Add", variance, self.constant(np.float64(epsilon))))
        normal = self("Mul", self("Div", centred, deviation), self.array(f"{name}/weight"))
        return self("Add", normal, self.array(f"{name}/bias"))

    def shaped(self, x: str, *shape: int) -> str:
        """-1 is what is left over."""
        return self("Reshape", x, self.constant(list(shape)))

    def rows(self, x: str, start: int, end: int = np.iinfo(np.int64).max, axis: int = 0) -> str:
        """Part of an axis."""
        return self("Slice", x, self.constant([start]), self.constant([end]), self.constant([axis]))


def _mlp(graph: _Graph, name: str, x: str) -> str:
    x, layer = graph.linear(f"{name}/0", x), 1
    while f"{name}/{layer}/weight" in graph.arrays:
        x, layer = graph.linear(f"{name}/{layer}", graph("Relu", x)), layer + 1
    return x


def _sequence(
    graph: _Graph, network: dict[str, Any], blank: dict[str, NDArray[Any]], normal: str
) -> tuple[str, dict[str, str]]:
    """Action in [-1, 1], and the memory afterwards; of IPD, Decision Transformer and Reinformer.

    `ipd.policy.act.act` without its options, and `act` of `ipd.baselines.dt` and `.reinformer`.
    """
    action_size = blank["actions"].shape[1]

    def push(name: str, new: str) -> str:
        row = graph.shaped(new, 1, *blank[name].shape[1:])
        return graph("Concat", graph.rows(name, 1), row, axis=0)

    one, last = graph.constant(np.int32(1)), graph.constant(np.int32(len(graph.arrays["embed_timestep"]) - 1))
    time = "time"
    if "time" not in blank:
        earlier = graph("Cast", graph.rows("present", -1), to=TensorProto.INT32)
        time = graph("Mul", graph("Add", graph.rows("timesteps", -1), one), earlier)
    after = {
        "observations": push("observations", normal),
        "actions": push("actions", graph.constant(np.zeros(action_size))),
        "timesteps": push("timesteps", graph("Min", time, last)),
        "present": push("present", graph.constant(np.array([True]))),
    }
    if "time" in blank:
        after["time"] = graph("Add", "time", one)
    if "reward" in blank:
        after["reward"] = graph.constant(np.float32(0))
    before = graph.rows("prompts", -1)
    if network["prompt"] == "value":
        prompt = graph("Div", _mlp(graph, "value", normal), graph.array("prompt_scale"))
    elif network["prompt"] == "counted":
        scaled = graph("Mul", graph.wide("reward"), graph.array("reward_scale"))
        prompt = graph("Sub", before, graph("Div", scaled, graph.array("return_scale")))
    else:
        after["prompts"] = push("prompts", graph.constant(np.zeros(1)))
        prompt = graph.linear("head_prompt", _hidden(graph, network, after, blank, 2))
        bound = graph("Add", before, graph.array("rise"))
        infinite = graph.constant(np.array([np.inf]))
        prompt = graph("Min", prompt, graph("Where", graph.rows("present", -1), bound, infinite))
    after["prompts"] = push("prompts", prompt)
    action = graph.linear("head", _hidden(graph, network, after, blank, 1))
    if network["prompt"] == "predicted":
        ends = (graph.constant(-1.0), graph.constant(1.0))
        action = graph("Min", graph("Max", action, ends[0]), ends[1])
    else:
        action = graph("Tanh", action)
    newest = graph.shaped(action, 1, action_size)
    after["actions"] = graph("Concat", graph.rows(after["actions"], 0, -1), newest, axis=0)
    return action, after


def _hidden(
    graph: _Graph, network: dict[str, Any], seen: dict[str, str], blank: dict[str, NDArray[Any]], behind: int
) -> str:
    """(width,) of the token that `behind` tokens follow, which it does not see."""
    context = len(blank["present"])
    time = graph.array("embed_timestep")
    width = graph.arrays["embed_timestep"].shape[1]
    if network["time"] == "episode":
        time = graph("Gather", time, seen["timesteps"], axis=0)
    rows = {
        "prompt": graph.shaped(seen["prompts"], context, 1),
        "observation": seen["observations"],
        "action": seen["actions"],
    }
    embedded = [graph("Add", graph.linear(f"embed_{s}", rows[s]), time) for s in network["streams"]]
    stacked = graph("Concat", *(graph.shaped(each, context, 1, width) for each in embedded), axis=1)
    x = graph.rows(graph.shaped(stacked, 3 * context, width), 0, -behind)
    thrice = graph("Expand", graph.shaped(seen["present"], context, 1), graph.constant([context, 3]))
    present = graph.rows(graph.shaped(thrice, 1, 3 * context), 0, -behind, axis=1)
    tokens = 3 * context - behind
    causal = np.tril(np.ones((tokens, tokens), bool))
    visible = graph("And", graph.constant(causal, f"causal_{tokens}"), present)
    x = graph.norm("norm_in", x, network["epsilon"])
    for layer in range(network["layers"]):
        last = layer == network["layers"] - 1  # in the end one token counts
        x = _block(graph, f"blocks/{layer}", x, visible, network, width, last)
    return graph.shaped(graph.norm("norm_out", x, network["epsilon"]), width)


def _block(
    graph: _Graph, name: str, x: str, visible: str, network: dict[str, Any], width: int, last: bool
) -> str:
    """A pre-norm block; of the last one only the last row is asked."""
    heads, epsilon = network["heads"], network["epsilon"]
    made = graph.linear(f"{name}/qkv", graph.norm(f"{name}/norm_attention", x, epsilon))
    q, k, v = (graph.rows(made, i * width, (i + 1) * width, axis=1) for i in range(3))
    if last:
        q, x, visible = (graph.rows(each, -1) for each in (q, x, visible))

    def by_head(each: str, *order: int) -> str:
        return graph("Transpose", graph.shaped(each, -1, heads, width // heads), perm=order)

    scaled = graph("Mul", by_head(q, 1, 0, 2), graph.constant((width // heads) ** -0.5))
    scores = graph("MatMul", scaled, by_head(k, 1, 2, 0))
    hidden = graph.constant(-1e9)
    weights = graph("Softmax", graph("Where", visible, scores, hidden), axis=-1)
    mixed = graph("Transpose", graph("MatMul", weights, by_head(v, 1, 0, 2)), perm=(1, 0, 2))
    x = graph("Add", x, graph.linear(f"{name}/out", graph.shaped(mixed, -1, width)))
    up = graph.linear(f"{name}/up", graph.norm(f"{name}/norm_forward", x, epsilon))
    return graph("Add", x, graph.linear(f"{name}/down", graph("Relu", up)))
