"""The contracts of the plug-ins, as tests: a plug-in of any package proves itself with them.

They need pytest and hypothesis, `pip install 'llmdyno[testing]'`, and nothing else imports them.
"""
