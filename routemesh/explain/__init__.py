"""Which way does the packet go, and which hop is broken: a snapshot of all nodes and a question → an Explanation. PURE.

    answer  all of it together                       way      a walk's branch, for people
    ask     what was typed → who asks whom           cause    what is wrong; nearby, stale, doubles, firewalls; mend
    through on from the gateway to a server of it    shown   rules as text, commands that show them
    text, picture: the Explanation for people
    nouns   the Explanation, which is also the JSON

This module loads none of them: printing an explanation must not wait for the walker.
"""
