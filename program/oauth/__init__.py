"""Tokens by OAuth 2.0 client credentials (RFC 6749 section 4.4), for the gateway and for the platform of hooks.

    credentials      what a client shows to a token endpoint, and what it asks for
    authentication   the request for a token, in each form that endpoints take
    responses        what a token endpoint responds: a token, or an error
    client           one token from one endpoint, in the form that it takes
    cache            the token of one client: fetched once for all who wait, renewed before it ends
    errors           why there is no token

How requests are sent is the caller's part: it resolves the endpoint's name and verifies its certificate.
"""
