# overlap.py
import time


def load():
    for number in range(6):
        time.sleep(0.1)  # stands for a disk or a network
        yield number
