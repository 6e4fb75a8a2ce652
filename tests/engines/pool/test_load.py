"""What vLLM's metrics say of its room and its queue."""

import pytest

from searchr1.engines.pool.load import Load, load_of

CONFIG = (
    'vllm:cache_config_info{block_size="16",cache_dtype="auto",calculate_kv_scales="False",engine="0",'
    'enable_prefix_caching="True",num_gpu_blocks="2912",num_cpu_blocks="None"} 1.0\n'
)
USAGE = 'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
QUEUE = 'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 2.0\n'


def test_one_engine() -> None:
    text = f"# HELP vllm:kv_cache_usage_perc x\n# TYPE vllm:kv_cache_usage_perc gauge\n{CONFIG}{USAGE}{QUEUE}"
    assert load_of(text) == Load(46_576, 11_644, 3, 2, 16)


def test_several_engines_of_one_server_are_summed() -> None:
    two = (CONFIG + USAGE + QUEUE) + (CONFIG + USAGE + QUEUE).replace('engine="0"', 'engine="1"').replace(
        "0.25", "0.75"
    )
    assert load_of(two) == Load(93_152, 46_576, 6, 4, 16)


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("", Load()),
        ("<html>", Load()),
        (QUEUE, Load(None, None, 3, 2)),
        (CONFIG, Load(46_576, None, block_tokens=16)),
        (USAGE, Load()),
        (CONFIG.replace("2912", "None") + USAGE, Load()),
        (CONFIG.replace("2912", "1") + USAGE, Load()),
        (CONFIG.replace('block_size="16"', 'block_size="0"') + USAGE, Load()),
        (CONFIG + USAGE.replace("0.25", "x"), Load(46_576, None, block_tokens=16)),
        (CONFIG + USAGE.replace("0.25", "7"), Load(46_576, 46_576, block_tokens=16)),
        (CONFIG + USAGE.replace('engine="0"', 'engine="1"'), Load(46_576, None, block_tokens=16)),
    ],
)
def test_what_is_not_told_or_can_not_be_read_is_unknown(text: str, load: Load) -> None:
    assert load_of(text) == load
