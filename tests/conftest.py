"""What all tests begin with."""

import signal

# What a shell without job control starts in the background is deaf to Ctrl-C, and so is all that it starts: a program
# under test would wait for ever for the one that its test sends.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
