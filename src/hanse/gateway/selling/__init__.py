"""One paid request on its way through the gateway, from its key to its last byte.

sale  what is known of one request while it is at work
holding  the bytes of bodies at work
headers  what the request's headers may hold, for the OpenAPI description
path  the way itself, in the order of its steps, with the seams where others join
"""
