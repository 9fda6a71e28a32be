"""`polymodal doctor`: looks at everything that a service stands on, and says what to do about what it finds.

installation.py, machine.py   what is there before anything runs
bundle.py                     whether a model can be served here
port.py, service.py           what others would find

Nothing here changes anything, and what one check meets keeps none of the others from running.
"""
