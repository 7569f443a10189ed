"""The drill: the stop path proved before it is needed, with real clients, real refused calls and a real receiver of alerts.

drill.py      the order of a drill, what each step must show   steps.py     the timeline, and what decides it
crew.py       the clients, in a process of their own           clients.py   the broker's end of that process
receiver.py   where the drill's alert arrives                  schedule.py  the drill that runs by itself
"""
