# SPDX-License-Identifier: Apache-2.0
"""A small laboratory: network namespaces, daemons and programs that vanish when it closes.

    lab.py       the Lab owns everything and takes it down again
    process.py   programs with a deadline, their output, and their end
    daemon.py    chirud with a generated configuration, and what chiructl says of it
    links.py     two hosts that can talk: kernel or chiru on either side, over each transport

The system tests and scripts/bench use the same laboratory.
"""
