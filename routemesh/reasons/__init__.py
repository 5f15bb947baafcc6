"""Why, as values: what became of a packet, why it went no further, what can't be told, what is wrong in a cluster. PURE.

Code decides by these, never by a sentence. `words` alone makes sentences, when a person is told; `named` makes what JSON has.

    ends     why a packet goes no further        events   what happened to it at a hop
    unclear  why that can't be told              causes   why a way is not as it should be
"""
