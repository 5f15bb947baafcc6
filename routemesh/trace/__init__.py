"""A real packet's way, beside the one that was predicted for it. PURE.

nouns     what is watched, what was seen, the answer        story      what all nodes saw, and what of it shows a step
wanted    what to watch for                                 compare    seen beside predicted: where they part
talk      what is said while a trace runs                   verdict    what it comes to, in a line
every     a trace of each way, together                     text       the answer for people
"""
