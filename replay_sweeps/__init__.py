"""replay-sweeps: how much target data is replaying generic data worth?"""

__version__ = "0.1.0"
