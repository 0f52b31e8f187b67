"""Arguments that benchmarks of torch share."""

import argparse

import torch


def parser_of(said: str, rounds: int = 3) -> argparse.ArgumentParser:
    """A parser with the device, torch's threads and the rounds; ``said`` begins with what it is."""
    parser = argparse.ArgumentParser(description=said.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's default")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds that the median is of")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; torch has its threads from then on."""
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return arguments
