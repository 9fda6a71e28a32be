"""`polymodal doctor`: checks of everything that a service depends on, with advice about each problem.

installation.py, machine.py   Python, packages, settings; processor, memory, open files
bundle.py                     whether a model can be served on this machine
port.py, service.py           whether the port is free; a running service over HTTP

Checks change nothing, and the failure of one does not stop the others.
"""
